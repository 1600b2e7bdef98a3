"""Dumps assembled from the captures' tables give those tables back, and the kernel's own text of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import vmcore_builder as builder
from vmcore_builder import STATES, Capture, Layout, Load

from vmemmap import _core
from vmemmap.dumps.image import kind_of, read_npz, write_npz
from vmemmap.dumps.physical_memory import FileMemory, Segment, joined
from vmemmap.dumps.storage import Storage
from vmemmap.dumps.vmcore import Vmcore, read_vmcore
from vmemmap.errors import ImageError, SpecError
from vmemmap.machine.machine import Machine

LAYOUTS: tuple[Layout, ...] = ("vmcore", "qemu", "kcore")
OF_EACH_MACHINE = [next(s for s in STATES if s.parent.name == name) for name in ("6.1-4k", "6.1-64k", "6.12-4k")]


def identity(state: Path) -> str:
    return f"{state.parent.name}-{state.name}"


def by_hand(capture: Capture) -> dict[str, int | str]:
    d = capture.json
    kernel = capture.state.parent.name.split("-")[0]
    return {
        "root": d["root_pa"],
        "granule": d["granule"],
        "va_bits": d["va_bits"],
        "memstart": d["memstart"],
        "kernel": kernel,
    }


def same_tables(found: Vmcore, capture: Capture) -> None:
    for name in ("pa", "level", "words"):
        ours, theirs = getattr(found.image, name), getattr(capture, name)
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs), name


def same_text(found: Vmcore, capture: Capture) -> None:
    """As a live machine the image prints what the kernel printed."""
    image = found.image
    tables = _core.TableImage(image.pa, image.level, image.words, image.description)
    text = capture.state.with_name(f"{capture.state.name}.ptdump.txt").read_text()
    assert _core.Machine.load(tables, "{}", False).ptdump() == text


def ram(found: Vmcore) -> list[tuple[int, int]]:
    assert all(boot for _, _, boot in found.image.description.ram)
    return [(start, end) for start, end, _ in found.image.description.ram]


@pytest.fixture(scope="module")
def small() -> Capture:
    """15 tables of 64K."""
    return builder.load(OF_EACH_MACHINE[1])


def refused(path: Path, **arguments: int | str) -> str:
    with pytest.raises(ImageError) as caught:
        read_vmcore(path, **arguments)  # pyright: ignore[reportArgumentType]
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"{path}: "), text
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("state", STATES, ids=identity)
def test_an_elf_dump_gives_the_captured_tables(state: Path, layout: Layout, tmp_path: Path) -> None:
    capture = builder.load(state)
    found = read_vmcore(builder.write_elf(tmp_path / "core", capture, layout))
    same_tables(found, capture)
    same_text(found, capture)
    assert found.source == ("kcore" if layout == "kcore" else "elf")
    # vmalloc, modules and vmemmap of /proc/kcore are no memory, and the kernel's text is in RAM already.
    assert ram(found) == list(joined(capture.machine_ram if layout == "qemu" else capture.system_ram))
    d, expected = found.image.description, read_npz(state.with_suffix(".npz")).description
    for name in ("granule", "va_bits", "kernel", "root_pa", "memstart", "vmemmap_start", "vmemmap_end", "hvo"):
        assert getattr(d, name) == getattr(expected, name), name
    assert (d.hugepages, d.blocks_online, d.block_size) == ((), None, 0)
    found.memory.close()


@pytest.mark.parametrize("state", STATES, ids=identity)
def test_raw_memory_with_a_base_gives_the_captured_tables(state: Path, tmp_path: Path) -> None:
    capture = builder.load(state)
    path, base = builder.write_raw(tmp_path / "memory", capture)
    found = read_vmcore(path, base=base, **by_hand(capture))  # pyright: ignore[reportArgumentType]
    same_tables(found, capture)
    same_text(found, capture)
    assert found.source == "raw" and ram(found) == [(base, capture.machine_ram[-1][1])]


@builder.needs_drgn
@pytest.mark.parametrize("state", STATES, ids=identity)
def test_a_kdump_compressed_dump_gives_the_captured_tables(state: Path, tmp_path: Path) -> None:
    capture = builder.load(state)
    path = tmp_path / "core"
    path.write_bytes(builder.kdump_bytes(capture))
    found = read_vmcore(path)
    same_tables(found, capture)
    same_text(found, capture)
    # What the linear map maps is what /proc/iomem calls System RAM.
    assert found.source == "kdump" and ram(found) == list(joined(capture.system_ram))
    found.memory.close()


@builder.needs_drgn
@pytest.mark.parametrize("state", OF_EACH_MACHINE, ids=identity)
def test_the_flattened_form_is_the_same_dump(state: Path, tmp_path: Path) -> None:
    capture = builder.load(state)
    path = tmp_path / "core"
    path.write_bytes(builder.flattened(builder.kdump_bytes(capture)))
    found = read_vmcore(path)
    same_tables(found, capture)
    assert found.source == "kdump"
    found.memory.close()


@builder.needs_drgn
@pytest.mark.parametrize("state", OF_EACH_MACHINE, ids=identity)
def test_drgn_sees_the_same_elf_dump(state: Path, tmp_path: Path) -> None:
    capture = builder.load(state)
    path = builder.write_elf(tmp_path / "core", capture)
    ours, theirs = read_vmcore(path), read_vmcore(path, through="drgn")
    same_tables(theirs, capture)
    same_text(theirs, capture)
    assert theirs.source == "elf" and ours.image.description == theirs.image.description
    root, outside = ours.image.description.root_pa, 0x1000
    assert ours.memory.read(root, capture.granule) == theirs.memory.read(root, capture.granule) != None  # noqa: E711
    assert ours.memory.read(outside, 8) is theirs.memory.read(outside, 8) is None
    theirs.memory.close()


def test_an_image_of_a_dump_is_saved_and_loaded_like_any_other(tmp_path: Path) -> None:
    capture = builder.load(OF_EACH_MACHINE[0])
    found = read_vmcore(builder.write_elf(tmp_path / "core", capture))
    write_npz(tmp_path / "core.npz", found.image)
    assert (
        Machine.load(tmp_path / "core.npz").ptdump()
        == capture.state.with_name(f"{capture.state.name}.ptdump.txt").read_text()
    )


def test_many_program_headers_are_counted_in_a_section_header(small: Capture, tmp_path: Path) -> None:
    same_tables(read_vmcore(builder.write_elf(tmp_path / "core", small, xnum=True)), small)


def test_what_was_left_out_of_a_dump_is_left_out(small: Capture, tmp_path: Path) -> None:
    """makedumpfile stores the first part of a range and excludes the rest: memory, of which nothing is known."""
    (start, end), cut = small.system_ram[0], int(small.pa[-2])
    path = builder.write_elf(tmp_path / "core", small, loads=[Load(0, start, cut - start, end - start)])
    found = read_vmcore(path)
    assert ram(found) == [(start, end)]
    assert np.array_equal(found.image.pa, small.pa[:-2])
    assert (
        found.memory.read(cut, 1) is None
        and found.memory.read(cut - 8, 8) is not None
        and found.memory.read(cut - 4, 8) is None
    )


def test_segments_that_touch_are_read_as_one(small: Capture, tmp_path: Path) -> None:
    start, end = small.system_ram[0]
    middle = int(small.pa[0]) + small.granule // 2
    loads = [Load(0, middle, end - middle, end - middle), Load(0, start, middle - start, middle - start)]
    path = builder.write_elf(tmp_path / "core", small, loads=loads, pages=[])
    page = small.words[0].tobytes()
    with path.open("r+b") as file:
        at = path.stat().st_size - (end - start)
        file.seek(at)
        file.write(page[small.granule // 2 :])
        file.seek(at + (end - middle) + int(small.pa[0]) - start)
        file.write(page[: small.granule // 2])
    found = read_vmcore(path, root=int(small.pa[0]))
    assert found.memory.read(int(small.pa[0]), small.granule) == page
    assert ram(found) == [(start, end)]


def test_physical_address_0_is_memory_where_it_can_be(small: Capture, tmp_path: Path) -> None:
    """QEMU's segments have no virtual address, and RAM may start at 0;
    the same claim at an address of vmemmap is none.
    """
    ram_loads = builder.loads_of(small, "vmcore")
    for va, expected in ((0, True), ((1 << 64) - (1 << 48) - 0x40000000, True), (0xFFFFFFC000000000, False)):
        path = builder.write_elf(tmp_path / "core", small, loads=[Load(va, 0, 65536, 65536), *ram_loads])
        found = read_vmcore(path)
        assert (found.memory.read(0, 16) is not None) == expected
        assert found.source == ("elf" if expected else "kcore")


@pytest.mark.parametrize(
    ("key", "line", "argument"),
    [
        ("PAGESIZE", "PAGESIZE", "granule"),
        ("OSRELEASE", "OSRELEASE", "kernel"),
        ("VA_BITS", "NUMBER(VA_BITS)", "va_bits"),
        ("PHYS_OFFSET", "NUMBER(PHYS_OFFSET)", "memstart"),
        ("swapper_pg_dir", "SYMBOL(swapper_pg_dir)", "root"),
        ("kimage_voffset", "NUMBER(kimage_voffset)", "root"),
    ],
)
def test_what_vmcoreinfo_lacks_is_found_in_memory_and_can_be_given(
    small: Capture, key: str, line: str, argument: str, tmp_path: Path
) -> None:
    info = builder.vmcoreinfo(small, **{key: None})
    if key == "VA_BITS":
        del info["NUMBER(TCR_EL1_T1SZ)"]
    path = builder.write_elf(tmp_path / "core", small, info=info)
    found = read_vmcore(path)
    same_tables(found, small)
    assert found.notes and found.image.description.kernel == "6.1"
    same_tables(read_vmcore(path, **{argument: by_hand(small)[argument]}), small)  # pyright: ignore[reportArgumentType]
    # Without the other tables of the linear map no root translates it, and what is missing is named.
    path = builder.write_elf(
        tmp_path / "core", small, info=info, pages=[p for p in small.pages() if p[0] == int(small.json["root_pa"], 16)]
    )
    if key not in ("OSRELEASE",):
        assert refused(path) == f"VMCOREINFO has no {line}: give {argument}"
    path = builder.write_elf(tmp_path / "core", small, info={**builder.vmcoreinfo(small), line: "?"})
    if key == "OSRELEASE":
        assert "a release from 5.4 on" in refused(path)
    else:
        assert refused(path).startswith(f"VMCOREINFO: {line}: expected ")
    same_tables(read_vmcore(path, **{argument: by_hand(small)[argument]}), small)  # pyright: ignore[reportArgumentType]


def test_without_vmcoreinfo_everything_is_found_or_can_be_given(small: Capture, tmp_path: Path) -> None:
    path = builder.write_elf(tmp_path / "core", small, "qemu", info={})
    for found in (read_vmcore(path), read_vmcore(path, **by_hand(small))):  # pyright: ignore[reportArgumentType]
        same_tables(found, small)
        same_text(found, small)
    path = builder.write_elf(tmp_path / "core", small, "qemu", info={}, pages=[])
    assert refused(path) == "the dump has no VMCOREINFO, which would say PAGESIZE: give granule"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("page", "56", "VMCOREINFO: SIZE(page): expected 64 (other sizes have another vmemmap and no HVO), found 56"),
        ("PAGESIZE", "8192", "VMCOREINFO: PAGESIZE: expected 4096, 16384 or 65536, found 8192"),
        ("SECTION_SIZE_BITS", "30", "VMCOREINFO: NUMBER(SECTION_SIZE_BITS): expected 29 with 64K pages, found 30"),
        ("VA_BITS", "42", "VMCOREINFO: NUMBER(TCR_EL1_T1SZ): expected 0x16, since NUMBER(VA_BITS) is 42; found 0x10"),
        (
            "TCR_EL1_T1SZ",
            "0x11",
            "VMCOREINFO: NUMBER(TCR_EL1_T1SZ): expected 0x10, since NUMBER(VA_BITS) is 48; found 0x11",
        ),
        ("VA_BITS", "four", "VMCOREINFO: NUMBER(VA_BITS): expected a decimal number, found 'four'"),
        (
            "kimage_voffset",
            "-1",
            "VMCOREINFO: NUMBER(kimage_voffset): expected a hexadecimal number of 64 bits, found '-1'",
        ),
        ("OSRELEASE", "4.19.0", "VMCOREINFO: OSRELEASE: expected a release from 5.4 on, or kernel given as one of "),
        (
            "swapper_pg_dir",
            "ffff8000082e0800",
            "swapper_pg_dir at 0x404e0800 (SYMBOL(swapper_pg_dir) less NUMBER(kimage_voffset)): expected a",
        ),
        (
            "swapper_pg_dir",
            "ffff800108de0000",
            "swapper_pg_dir at 0x140fe0000 (SYMBOL(swapper_pg_dir) less NUMBER(kimage_voffset)) is not in",
        ),
        (
            "kimage_voffset",
            "0x7fffc7e00000",
            "swapper_pg_dir at 0xffff0000404e0000 (SYMBOL(swapper_pg_dir) less NUMBER(kimage_voffset)): expe",
        ),
    ],
)
def test_a_value_that_cannot_be_is_named(small: Capture, key: str, value: str, reason: str, tmp_path: Path) -> None:
    path = builder.write_elf(tmp_path / "core", small, info=builder.vmcoreinfo(small, **{key: value}))
    assert refused(path).startswith(reason)


def test_va_bits_that_contradict_the_register_are_refused(small: Capture, tmp_path: Path) -> None:
    path = builder.write_elf(tmp_path / "core", small)
    assert (
        refused(path, va_bits=42)
        == "VMCOREINFO: NUMBER(TCR_EL1_T1SZ): expected 0x16, since va_bits is given as 42; found 0x10"
    )


def test_a_key_with_two_values_is_named(small: Capture, tmp_path: Path) -> None:
    lines = {**builder.vmcoreinfo(small), "PAGESIZE": "65536\nPAGESIZE=4096"}
    path = builder.write_elf(tmp_path / "core", small, info=lines)
    assert refused(path) == "VMCOREINFO: PAGESIZE: expected one value, found '65536' and '4096'"


def test_memstart_may_be_negative(small: Capture, tmp_path: Path) -> None:
    """KASLR moves RAM up in the linear map, so that PAGE_OFFSET lies below physical address 0."""
    memstart = -(3 << 30)
    info = builder.vmcoreinfo(small, PHYS_OFFSET=hex(memstart % (1 << 64)))
    path = builder.write_elf(tmp_path / "core", small, info=info)
    assert read_vmcore(path).image.description.memstart == memstart
    assert read_vmcore(path, memstart=-(1 << 30)).image.description.memstart == -(1 << 30)


def test_a_behaviour_that_the_layout_contradicts_is_refused(small: Capture, tmp_path: Path) -> None:
    """Whether VMCOREINFO says where vmemmap begins or only the tables do."""
    start = int(small.json["vmemmap_start"], 16)
    for missing in ({}, {"VMEMMAP_START": None}):
        path = builder.write_elf(tmp_path / "core", small, info=builder.vmcoreinfo(small, **missing))
        assert read_vmcore(path).image.description.vmemmap_start == start
        reason = (
            "kernel is given as 6.12, "
            "but vmemmap begins at 0xffffffc000000000 as in 5.11 to 6.8 (6.1.192): give kernel 6.1"
        )
        assert refused(path, kernel="6.12") == reason


@pytest.mark.parametrize(
    "arguments",
    [
        {"root": "nowhere"},
        {"root": -1},
        {"root": True},
        {"memstart": 1 << 60},
        {"base": 1 << 53},
        {"granule": "8K"},
        {"kernel": "6.2"},
        {"va_bits": "many"},
        {"through": "crash"},
    ],
)
def test_an_argument_that_is_none_is_refused(small: Capture, arguments: dict[str, int | str], tmp_path: Path) -> None:
    path = builder.write_elf(tmp_path / "core", small)
    with pytest.raises(SpecError, match=next(iter(arguments))):
        read_vmcore(path, **arguments)  # pyright: ignore[reportArgumentType]


def test_files_that_are_no_dumps_are_refused(small: Capture, tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none")
    assert "not a regular file" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refused(tmp_path / "pipe")
    path = tmp_path / "file"
    for content in (b"", b"\0" * 4096, small.state.with_suffix(".npz").read_bytes()):
        path.write_bytes(content)
        assert refused(path).endswith("give base if it is raw physical memory")
    assert refused(path, base=0x40000000) == "the dump has no VMCOREINFO, which would say PAGESIZE: give granule"
    path.write_bytes(b"")
    assert refused(path, base=0, **by_hand(small)).startswith("0 bytes from 0x0 on")
    for content in (b"\x7fELF", b"\x7fELF\2\1\1" + bytes(100)):
        path.write_bytes(content)
        assert kind_of(path) == "vmcore"
        refused(path)
    path.write_bytes(b"\x7fELF\2\1\1" + bytes(9) + b"\4\0\x3e\0" + bytes(44))
    assert refused(path) == "ELF of EM_X86_64: expected 64-bit little-endian EM_AARCH64"
    path.write_bytes(b"\x7fELF\2\1\1" + bytes(9) + b"\2\0\xb7\0" + bytes(44))
    assert refused(path) == "ELF of type ET_EXEC: expected a core dump (ET_CORE)"


def test_kinds_are_told_by_the_first_bytes(small: Capture, tmp_path: Path) -> None:
    path = builder.write_elf(tmp_path / "elf", small)
    assert kind_of(path) == "vmcore"
    with pytest.raises(ImageError, match="a vmcore, not a table image"):
        read_npz(path)
    for whole in (builder.kdump_bytes(small), builder.flattened(builder.kdump_bytes(small))):
        path.write_bytes(whole)
        assert kind_of(path) == "vmcore"


@pytest.mark.parametrize(("method", "library"), [("lzo", "lzallright"), ("snappy", "cramjam"), ("zstd", "zstandard")])
def test_without_its_library_a_method_is_named_and_how_to_install_it(
    method: str, library: str, small: Capture, tmp_path: Path
) -> None:
    path = tmp_path / "core"
    path.write_bytes(builder.kdump_bytes(small, method=method))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, library, None)
        reason = refused(path)
    assert reason.endswith(f"unpacking takes {library}, which is not installed: pip install 'vmemmap[vmcore]'")


def test_without_drgn_the_error_says_how_to_install_it(
    small: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "drgn.py").write_text("raise ImportError('hidden')\n")
    monkeypatch.syspath_prepend(hidden)
    path = tmp_path / "core"
    path.write_bytes(builder.kdump_bytes(small))
    assert (
        refused(path, through="drgn")
        == "reading this takes drgn, which is not installed: pip install 'vmemmap[vmcore]'"
    )


def test_memory_above_48_bits_is_refused_where_descriptors_cannot_name_it(small: Capture, tmp_path: Path) -> None:
    loads = [*builder.loads_of(small, "vmcore"), Load(0, 1 << 48, 0, 65536)]
    path = builder.write_elf(tmp_path / "core", small, loads=loads)
    assert "48 bits of physical address" in refused(path)


def test_reading_goes_no_further_than_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(100)))
    with (tmp_path / "file").open("rb") as file:
        segments = [
            Segment(1000, 200, 200, 50),
            Segment(5000, 10, 10, 1 << 62),
            Segment(6000, 10, 10, 90),
            Segment(6005, 10, 10, 0),
        ]
        memory = FileMemory(Storage(tmp_path / "file", os.dup(file.fileno())), segments)
    assert memory.ranges == ((1000, 1200), (5000, 5010), (6000, 6015))
    assert memory.read(1000, 50) == bytes(range(50, 100)) and memory.read(1000, 51) is None
    assert memory.read(5000, 1) is None and memory.read(999, 2) is None and memory.read(1000, 0) == b""
    assert memory.read(6000, 15) == bytes(range(90, 100)) + bytes(range(5, 10))
    assert memory.pages(10) == 6
    os.truncate(tmp_path / "file", 60)
    assert memory.read(1000, 11) is None and memory.read(1000, 10) == bytes(range(50, 60))
    with pytest.raises(ImageError, match="at most 64 MiB"):
        memory.read(0, 1 << 30)
    memory.close()
    memory.close()
    with pytest.raises(ImageError, match="cannot be read"):
        memory.read(1000, 1)
