"""Memory plugged where nobody listed any into a loaded machine, and errors that say why."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest

import vmemmap
from vmemmap.dumps.image import read_npz, write_npz
from vmemmap.errors import KernelError

CAPTURES = Path(__file__).parents[1] / "captures"


@pytest.mark.parametrize("name", ["6.1-4k/A", "6.1-64k/A", "6.12-4k/A"])
def test_a_dimm_is_added_used_removed_and_saved(name: str, tmp_path: Path) -> None:
    machine = vmemmap.Machine.load(CAPTURES / f"{name}.npz")
    before, tables = machine.memory.ranges, machine.tables.copy()
    start = max(at + size for at, size, _ in before)
    block = machine.memory.add(start=start, size="512M")
    block.online()
    head = machine.hugetlb["2M"].allocate(pfns=[start // machine.granule])
    assert machine.memory.ranges == [*before, (start, 512 << 20, False)]
    machine.hugetlb["2M"].free(pfns=head)
    assert not machine.check()
    machine.save(tmp_path / "x.npz")
    again = vmemmap.Machine.load(tmp_path / "x.npz")
    assert again.memory.ranges == [*before, (start, 512 << 20, False)] and again.ptdump() == machine.ptdump()
    machine.memory.remove(start=start, size="512M")
    assert machine.memory.ranges == before
    assert set(machine.tables.copy().pa.tolist()) == set(tables.pa.tolist())


def test_a_uefi_machine_whose_memstart_is_0_takes_a_dimm(tmp_path: Path) -> None:
    """Only the numbers of such a machine: its linear map begins at 0, RAM at 1G, and nothing is listed above it."""
    image = read_npz(CAPTURES / "6.1-4k/A.npz")
    boot = [entry for entry in image.description.ram if entry[2]]
    write_npz(tmp_path / "a.npz", replace(image, description=replace(image.description, ram=tuple(boot))))
    machine = vmemmap.Machine.load(tmp_path / "a.npz")
    assert machine.memory.add(start=0x80000000, size="512M").state == "offline"
    assert len(machine.memory.ranges) == 2


def test_a_refusal_says_why_in_words_and_hexadecimal() -> None:
    machine = vmemmap.Machine(hotplug_memory="1G")
    said = {
        (0x140000000, "100M"): (
            errno.EINVAL,
            "memory_add of 100M at 0x140000000: EINVAL: not a multiple of the memory block size, 128M",
        ),
        (0x40000000, "128M"): (errno.EEXIST, "memory_add of 128M at 0x40000000: EEXIST: a part of it is there already"),
        (0x1000000000000, "128M"): (
            errno.EINVAL,
            "memory_add of 128M at 0x1000000000000: EINVAL: the linear map has addresses for",
        ),
    }
    for (start, size), (number, words) in said.items():
        with pytest.raises(KernelError) as caught:
            machine.memory.add(start=start, size=size)
        assert caught.value.errno == number and str(caught.value).startswith(words)
    block = machine.memory.add("128M")
    block.online()
    with pytest.raises(KernelError, match="memory_remove of 128M at 0x140000000: EBUSY: a block is online"):
        machine.memory.remove(block)
    with pytest.raises(
        KernelError, match=r"memory_online of 128M at 0x140000000 .*: EINVAL: a block is online already"
    ):
        block.online()
