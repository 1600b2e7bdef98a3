"""Dumps that QEMU and makedumpfile wrote: all tables, the kernel's own text byte for byte,
nothing found where nothing is wrong.
"""

from __future__ import annotations

import json
import lzma
import struct
from pathlib import Path

import numpy as np
import pytest
from vmcore_builder import needs_drgn

from vmemmap import _core
from vmemmap.cli import main
from vmemmap.dumps.checking import check
from vmemmap.dumps.difference import diff
from vmemmap.dumps.vmcore import read_vmcore
from vmemmap.errors import ImageError

DUMPS = Path(__file__).with_name("dumps")
MACHINES = {
    "qemu72-elf-vmcoreinfo.slim.elf": "c-qemu72",
    "qemu72-kdump-zlib.flat": "c-qemu72",
    "qemu72-kdump-zlib-novmcoreinfo.flat": "d-novmcoreinfo",
    "makedumpfile172-c.kdump": "c-qemu72",
    "makedumpfile172-c.flat": "c-qemu72",
    "makedumpfile172-l.kdump": "c-qemu72",
    "makedumpfile172.kdump": "c-qemu72",
    "makedumpfile172-E.elf": "c-qemu72",
}
STOCK = "debian-stock-va52on48.slim.elf"


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dumps")
    for name in (*MACHINES, STOCK):
        with lzma.open(DUMPS / f"{name}.xz") as packed, (directory / name).open("wb") as file:
            while piece := packed.read(1 << 20):
                if piece.strip(b"\0"):
                    file.write(piece)
                else:
                    file.seek(len(piece), 1)
            file.truncate(file.tell())
    return directory


@pytest.mark.parametrize("name", MACHINES)
def test_the_dump_is_the_machine(name: str, unpacked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, machine = unpacked / name, DUMPS / MACHINES[name]
    found = read_vmcore(path)
    with np.load(machine.with_suffix(".npz")) as image:
        for array in ("pa", "level", "words"):
            assert np.array_equal(getattr(found.image, array), image[array]), array
    assert found.missing == () and [r[:2] for r in found.image.description.ram] == [(0x40000000, 0x50000000)]
    found.memory.close()
    checked = check(path)
    assert checked.verdict == "clean" and checked.counts["optimised_hugepages"] == 8, checked.text()
    assert not diff(path, machine.with_suffix(".npz"))
    capsys.readouterr()
    assert main(["ptdump", str(path)]) == 0
    assert capsys.readouterr().out == machine.with_suffix(".ptdump.txt").read_text()


def test_a_kernel_built_for_52_bits_on_a_cpu_with_48(unpacked: Path) -> None:
    """VA_BITS 52, T1SZ 16: four levels, memstart_addr lowered by 15 << 48."""
    path = unpacked / STOCK
    found = read_vmcore(path)
    d = found.image.description
    assert (d.va_bits, d.memstart, d.vmemmap_start, d.root_pa) == (48, 0x40000000, 0xFFFFFDFFC0000000, 0x428F9000)
    assert any("built for 52-bit addresses" in note for note in found.notes)
    assert check(path).verdict == "clean"
    for by_hand in ({"memstart": 0x40000000}, {"memstart": 0xFFF1000040000000, "va_bits": 48}, {"va_bits": 52}):
        again = read_vmcore(path, **by_hand)  # pyright: ignore[reportArgumentType]
        assert again.image.description == d and np.array_equal(again.image.words, found.image.words)
        again.memory.close()
    found.memory.close()


@pytest.mark.parametrize("name", [*MACHINES, STOCK])
def test_an_older_layout_is_never_clean(name: str, unpacked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(unpacked / name), "--kernel", "6.1"]) == 2
    assert "give kernel " in capsys.readouterr().err


@needs_drgn
@pytest.mark.parametrize("name", [name for name in MACHINES if "novmcoreinfo" not in name])
def test_drgn_reads_the_same(name: str, unpacked: Path) -> None:
    ours, theirs = read_vmcore(unpacked / name), read_vmcore(unpacked / name, through="drgn")
    assert np.array_equal(ours.image.words, theirs.image.words)
    root = ours.image.description.root_pa
    assert ours.memory.read(root, 4096) == theirs.memory.read(root, 4096)
    assert theirs.memory.read(0x1000, 8) is None
    for found in (ours, theirs):
        found.memory.close()


@needs_drgn
def test_drgn_reads_a_dump_without_vmcoreinfo_of_which_all_is_given(unpacked: Path) -> None:
    path = unpacked / "qemu72-kdump-zlib-novmcoreinfo.flat"
    by_hand = {"root": 0x405C7000, "granule": "4K", "va_bits": 48, "memstart": 0x40000000, "kernel": "6.12"}
    ours = read_vmcore(path, **by_hand)  # pyright: ignore[reportArgumentType]
    theirs = read_vmcore(path, through="drgn", **by_hand)  # pyright: ignore[reportArgumentType]
    assert np.array_equal(ours.image.words, theirs.image.words)
    with pytest.raises(ImageError, match=r"swapper_pg_dir at 0x1000 .* is not in the dump"):
        read_vmcore(path, through="drgn", **{**by_hand, "root": 0x1000})  # pyright: ignore[reportArgumentType]
    for found in (ours, theirs):
        found.memory.close()


def test_a_damaged_tail_of_7_x_is_found(unpacked: Path, tmp_path: Path) -> None:
    """One tail of an optimised hugepage is mapped to the frame of its head, one is made writable, one is gone."""
    machine = DUMPS / "c-qemu72"
    with np.load(machine.with_suffix(".npz")) as image:
        arrays = {name: image[name].copy() for name in image.files}
    (tmp_path / "a.json").write_text(json.dumps(json.loads(machine.with_suffix(".json").read_text())))
    tails = np.argwhere((arrays["words"] & np.uint64(0xFFFF_0000_0000_0FFF)) == np.uint64(0x00E0_0000_0000_0783))
    shared = [(int(row), int(column)) for row, column in tails if arrays["level"][row] == 3]
    frame = max(
        {int(arrays["words"][at]) for at in shared},
        key=lambda word: sum(int(arrays["words"][at]) == word for at in shared),
    )
    row, column = next(at for at in shared if int(arrays["words"][at]) == frame)
    head = int(arrays["words"][row][column - 1])
    head_frame = head & 0xFFFF_FFFF_F000
    for word, invariants in (
        (head_frame | 0x00E0_0000_0000_0783, {"I10"}),
        (frame & ~0x80 | 1 << 51, {"I8", "I12"}),
        (0, {"I2"}),
    ):
        damaged = {name: array.copy() for name, array in arrays.items()}
        damaged["words"][row][column + 1] = word
        np.savez_compressed(tmp_path / "a.npz", **damaged)
        assert invariants <= set(check(tmp_path / "a.npz").found), hex(word)


def test_every_geometry_of_a_kernel_built_for_52_bits(tmp_path: Path) -> None:
    """struct page of PFN n is in the same place by the layout of 52 bits with the memstart_addr that such a kernel has,
    and by that of the bits in use with the one that the image is given."""
    from vmemmap.dumps.va_layout import in_use_memstart, page_offset, vmemmap_in_use

    for granule, bits in ((4096, 48), (16384, 47), (65536, 48)):
        for kernel in ("6.12", *(("6.1",) if granule == 65536 else ())):
            built, used = _core.layout(granule, 52, kernel), _core.layout(granule, bits, kernel)
            lowered = 0x40000000 - (page_offset(bits) - page_offset(52))
            assert in_use_memstart(lowered, granule, bits) == 0x40000000 == in_use_memstart(0x40000000, granule, bits)
            assert vmemmap_in_use(built["VMEMMAP_START"], granule, 52, bits) == used["VMEMMAP_START"]
            assert (built["VMEMMAP_END"], built["PAGE_END"]) == (used["VMEMMAP_END"], used["PAGE_END"])
            assert struct.pack("<q", lowered)
