"""``vmemmap layout --add`` and ``--remove`` agree with what the machine does, and say why in the kernel's terms."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmemmap
from vmemmap.cli import main
from vmemmap.errors import KernelError, SpecError
from vmemmap.sizing.hotplug_range import add, memmap_of, parse_at, remove
from vmemmap.sizing.layout import layout

M, G = 1 << 20, 1 << 30


@given(st.integers(0, 40), st.integers(0, 24), st.sampled_from([64, 128]), st.sampled_from(["4K", "64K"]))
@settings(deadline=None, max_examples=25)
def test_what_is_accepted_the_machine_accepts(start: int, size: int, unit: int, granule: str) -> None:
    machine = vmemmap.Machine(granule=granule, boot_memory="1G", hotplug_memory="2G")
    at, length = 0x80000000 + start * unit * M, size * unit * M
    answer = add(layout(granule), f"{length}@{at:#x}", memstart=0x40000000, ram=[(0x40000000, 0x80000000)])
    try:
        machine.memory.add(start=at, size=length)
        errno = None
    except KernelError as error:
        errno = error.errno
        assert str(error).startswith(f"memory_add of {vmemmap.spec.format_size(length)} at {at:#x}: ")
    if at + length <= 0x80000000 + 2 * G:
        assert answer.accepted == (errno is None)


@pytest.mark.parametrize(
    ("text", "more", "errno", "reason"),
    [
        ("768M@0xc8000000", {}, None, "whole memory blocks"),
        ("100M@0xc8000000", {}, "EINVAL", "unaligned hotplug range: start 0xc8000000, size 0x6400000"),
        ("128M@0xc8000001", {}, "EINVAL", "unaligned"),
        ("0@0xc8000000", {}, "EINVAL", "unaligned"),
        ("128M@0x48000000", {}, "EEXIST", "register_memory_resource"),
        ("128M@0x801000000000", {"memstart": 0x40000000}, "EINVAL", "mhp_range_allowed"),
        ("1P@0x80000000", {}, "EINVAL", "mhp_range_allowed: the linear map has addresses for 128T"),
        ("128M@0xc8000000", {"block_size": 2 * G}, "EINVAL", "Block size [0x80000000]"),
    ],
)
def test_a_refusal_names_the_test_that_refuses(text: str, more: dict[str, Any], errno: str | None, reason: str) -> None:
    answer = add(layout("4K"), text, ram=[(0x40000000, 0x80000000)], **more)
    assert (answer.accepted, answer.errno) == (errno is None, errno) and reason in answer.reason
    assert json.loads(json.dumps(answer.to_dict())) == answer.to_dict()


def test_a_range_that_would_be_accepted_is_named() -> None:
    assert add(layout("64K"), "1536M@0xc8000000").right == "1G@0xe0000000"
    assert add(layout("64K"), "768M@0xc8000000").right is None


def test_removal_of_boot_memory_is_vetoed() -> None:
    machine = layout("4K")
    boot = remove(machine, "128M@0x48000000", boot=[(0x40000000, 0x80000000)])
    assert (boot.accepted, boot.errno) == (False, "EPERM") and "prevent_bootmem_remove_notifier" in boot.reason
    assert remove(machine, "128M@0x88000000", boot=[(0x40000000, 0x80000000)]).accepted
    assert remove(machine, "100M@0x88000000").errno == "EINVAL"
    assert not remove(machine, "128M@0x88000000", added=[(0x90000000, 0xA0000000)]).accepted


@given(st.lists(st.tuples(st.integers(0, 1 << 12), st.integers(1, 1 << 9)), max_size=6))
def test_struct_pages_come_by_whole_sections(pieces: list[tuple[int, int]]) -> None:
    machine = layout("4K")
    ram: list[tuple[int, int]] = []
    for start, pages in sorted(pieces):
        first = max(start * M, ram[-1][1] if ram else 0)
        ram.append((first, first + pages * M))
    found = memmap_of(machine, ram)
    sections = {at // machine.section_size for start, end in ram for at in range(start, end, M)}
    assert (found.sections, found.vmemmap) == (len(sections), len(sections) * 2 * M)
    assert found.needed == sum(end - start for start, end in ram) // 4096 * 64 <= found.vmemmap
    assert set(found.partial) <= sections


@pytest.mark.parametrize("text", ["768M", "768M@", "@0x1000", "x@0", "1E@0xfffffffffffff"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse_at(text, "add")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layout", "--add", "768M@0xc8000000", "--ram", "1000M@0x40000000", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ranges"][0]["accepted"] and answer["ram"]["partial_sections"] == [15]
    assert main(["layout", "--add", "100M@0xc8000000"]) == 1 and "EINVAL" in capsys.readouterr().out
    assert main(["layout", "--block-size", "3M"]) == 2 and main(["layout", "--remove", "1G"]) == 2
