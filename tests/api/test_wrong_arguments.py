"""Arguments of a wrong type: an exception of the package, one line that says which and what would be right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmemmap

MACHINE = vmemmap.Machine(boot_memory="256M", hotplug_memory="128M")
CALLS: dict[str, Callable[[Any], object]] = {
    "block": MACHINE.memory.remove,
    "threads": lambda value: vmemmap.stress("R6", threads=value),
    "seconds": lambda value: vmemmap.stress("R6", seconds=value),
    "cpus": lambda value: vmemmap.compare("R3", cpus=[value]),
    "variant": lambda value: vmemmap.explore("R6", variant=value),
    "variants": lambda value: vmemmap.scenario(title="x", sources=[], variants=[value]),
}


@given(
    name=st.sampled_from(sorted(CALLS)), value=st.binary() | st.lists(st.integers(), min_size=1) | st.complex_numbers()
)
@settings(deadline=None)
def test_what_is_none_is_named(name: str, value: object) -> None:
    with pytest.raises(vmemmap.SpecError) as refused:
        CALLS[name](value)
    assert name in str(refused.value) and repr(value) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_litmus_test_that_is_not_there_is_named() -> None:
    with pytest.raises(vmemmap.ImageError, match=r"^nosuch: cannot be read: No such file or directory$"):
        vmemmap.litmus("nosuch")
    with pytest.raises(vmemmap.ImageError, match=r"^nosuch: cannot be read"):
        vmemmap.litmus([Path("nosuch")])


def test_a_vmcore_is_called_one_where_an_image_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vmemmap.cli import main

    core = tmp_path / "core"
    core.write_bytes(b"\x7fELF" + bytes(100))
    for arguments in (
        ["estimate", "--remove", "0x80000000-0x88000000", "--input", str(core)],
        ["run", "--input", str(core), "--out", str(tmp_path / "out")],
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert "a vmcore" in error and "table image (.npz)" in error
    assert not (tmp_path / "out").exists()
