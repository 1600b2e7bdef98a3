"""What a dump does not say: found in its memory, taken from the nearest release,
or derived for a CPU with fewer bits.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import vmcore_builder as builder
from hypothesis import given, settings
from hypothesis import strategies as st
from vmcore_builder import STATES, Capture

from vmemmap import _core
from vmemmap.dumps.checking import check
from vmemmap.dumps.releases import behaviour_of_layout, behaviour_of_release
from vmemmap.dumps.search import search
from vmemmap.dumps.va_layout import GENERATIONS, page_end
from vmemmap.dumps.vmcore import read_vmcore
from vmemmap.errors import ImageError, SpecError
from vmemmap.machine.machine import Machine
from vmemmap.spec import KERNELS

SMALL = builder.load(next(s for s in STATES if s.parent.name == "6.1-64k"))
ROOT = int(SMALL.json["root_pa"], 16)
UNUSED = (1 << 52) - (1 << 48)


@pytest.mark.parametrize(
    ("release", "behaviour"),
    [
        ("5.4.0-216-generic", "2021"),
        ("5.10.0-32-arm64", "2021"),
        ("5.14.0-427.13.1.el9_4.aarch64", "2021"),
        ("5.15.0-1.el9.aarch64", "2021"),
        ("6.1.192", "6.1"),
        ("6.5.0-14-generic", "6.1"),
        ("6.6.13", "6.1"),
        ("6.8.0-60-generic", "6.1"),
        ("6.9.0", "6.12"),
        ("6.12.8", "6.12"),
        ("6.12.117", "6.12.117"),
        ("6.17.0-5-generic", "6.12"),
        ("6.18.3", "6.12"),
    ],
)
def test_a_release_is_taken_as_the_nearest_behaviour_and_says_why(release: str, behaviour: str) -> None:
    found = behaviour_of_release(release)
    assert found is not None and found.kernel == behaviour
    own = release.split("-")[0] in ("6.1.192", "6.12.8", "6.12.117") or release.startswith(("5.14", "5.15"))
    assert bool(found.why) != own


def test_newer_releases_take_the_newest_behaviour_that_is_modelled() -> None:
    for release in ("7.1.3", "7.2.13", "7.3.4+deb13-arm64", "7.9.0"):
        found = behaviour_of_release(release)
        assert found is not None and found.kernel in GENERATIONS[0].behaviours
    assert behaviour_of_release("4.19.0") is None and behaviour_of_release("next-20261101") is None


def test_what_the_layout_shows_counts_for_more_than_the_number() -> None:
    for generation in GENERATIONS[:2]:
        for release in ("5.14.0-570.el9.aarch64", "6.6.13", "6.17.0", "6.1.192"):
            found = behaviour_of_release(release, generation)
            assert found is not None and found.kernel in generation.behaviours
        for newer in (False, True):
            told = behaviour_of_layout(generation, newer and generation is GENERATIONS[0])
            assert told is not None and told.kernel in KERNELS and told.why


@pytest.mark.parametrize("release", ["5.14.0-427.13.1.el9_4.aarch64", "6.6.13", "6.8.0-60-generic", "6.17.0", "7.3.4"])
def test_a_dump_of_any_release_is_read_by_its_layout(release: str, tmp_path: Path) -> None:
    path = builder.write_elf(tmp_path / "core", SMALL, info=builder.vmcoreinfo(SMALL, OSRELEASE=release))
    found = read_vmcore(path)
    assert found.image.description.kernel in ("2021", "6.1") and np.array_equal(found.image.words, SMALL.words)
    assert (release.startswith("5.14")) or any(note.startswith("taken as ") for note in found.notes)
    found.memory.close()
    assert check(path).verdict == "clean"


def test_memory_in_several_files_each_with_its_base(tmp_path: Path) -> None:
    path, base = builder.write_raw(tmp_path / "memory", SMALL)
    cut = 0x1000_0000
    with path.open("rb") as whole, (tmp_path / "low").open("wb") as low, (tmp_path / "high").open("wb") as high:
        low.write(whole.read(cut))
        size = path.stat().st_size
        high.truncate(size - cut)
        for pa, page in SMALL.pages():
            if pa - base >= cut:
                high.seek(pa - base - cut)
                high.write(page)
    parts = [(tmp_path / "high", hex(base + cut))]
    found = read_vmcore(tmp_path / "low", base=base, ram=parts)
    assert np.array_equal(found.image.words, SMALL.words) and found.image.description.root_pa == ROOT
    assert found.memory.ranges == ((base, base + size),)
    found.memory.close()
    text = SMALL.state.with_name(f"{SMALL.state.name}.ptdump.txt").read_text()
    assert Machine.load(tmp_path / "low", base=base, ram=[f"{tmp_path / 'high'}@{base + cut:#x}"]).ptdump() == text
    with pytest.raises(ImageError, match="overlaps"):
        read_vmcore(tmp_path / "low", base=base, ram=[(tmp_path / "high", base + 65536)])
    with pytest.raises(SpecError, match="base: expected"):
        read_vmcore(tmp_path / "low", ram=parts)
    with pytest.raises(SpecError, match="like ram1"):
        check(tmp_path / "low", base=base, ram=["high"])


def copied_root(capture: Capture) -> Capture:
    """A second root in the middle of memory, with the entries of the first."""
    row = int(np.searchsorted(capture.pa, ROOT))
    at = np.uint64(0x5000_0000)
    return replace(capture, pa=np.append(capture.pa, at), words=np.vstack([capture.words, capture.words[row]]))


def test_of_several_candidates_all_are_listed(tmp_path: Path) -> None:
    doubled = copied_root(SMALL)
    path = builder.write_elf(tmp_path / "core", doubled, "qemu", info={})
    with pytest.raises(
        ImageError, match="2 candidates for swapper_pg_dir translate their own linear map: give root"
    ) as caught:
        read_vmcore(path)
    assert all(
        f"root {pa:#x} (64K pages, 48 bits, memstart 0x40000000" in str(caught.value)
        for pa in (ROOT, int(doubled.pa[-1]))
    )
    found = read_vmcore(path, root=ROOT)
    assert np.array_equal(found.image.words, SMALL.words)
    found.memory.close()


@pytest.mark.parametrize("told", [True, False], ids=["vmcoreinfo", "nothing"])
@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_a_64k_kernel_of_52_bits_on_a_cpu_with_48(kernel: str, told: bool, tmp_path: Path) -> None:
    """The root has 1,024 entries, of which the upper 64 are in use. Of the capture are left the linear map and vmemmap,
    where that kernel has it: fixmap and vmalloc lie elsewhere there."""
    old = int(SMALL.json["vmemmap_start"], 16)
    built, used = _core.layout(65536, 52, kernel), _core.layout(65536, 48, kernel)
    words, row = SMALL.words.copy(), int(np.searchsorted(SMALL.pa, ROOT))
    words[row] = 0
    words[row, 960:1024] = SMALL.words[row, :64]
    middle = int(np.searchsorted(SMALL.pa, int(SMALL.words[row, 63]) & 0xFFFF_FFFF_0000))
    words[middle] = 0
    words[middle, used["VMEMMAP_START"] >> 29 & 8191] = SMALL.words[middle, old >> 29 & 8191]
    lowered = 0x40000000 - UNUSED
    info = builder.vmcoreinfo(
        SMALL,
        OSRELEASE=f"{kernel}.8",
        VA_BITS="52",
        PHYS_OFFSET=hex(lowered % (1 << 64)),
        VMEMMAP_START=hex(built["VMEMMAP_START"]),
        VMEMMAP_END=hex(built["VMEMMAP_END"]),
    )
    path = builder.write_elf(tmp_path / "core", replace(SMALL, words=words), info=info if told else {})
    found = read_vmcore(path)
    d = found.image.description
    assert (d.va_bits, d.memstart, d.kernel) == (52, lowered, kernel)
    assert any("built for 52-bit addresses on a CPU with 48" in note for note in found.notes)
    found.memory.close()
    checked = check(path)
    assert checked.verdict == "clean" and checked.counts["mapped_pages"] == 64, checked.text()
    # Up to 6.1 the text begins at PAGE_OFFSET, since then where the bits in use do.
    first = Machine.load(path).ptdump().splitlines()[1]
    assert first.startswith("0xfff0000000000000-" if kernel == "6.1" else "0xffff000000000000-")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_memory_of_any_contents_has_no_root_but_its_own(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Noise that looks like tables among the real ones."""
    path = tmp_path_factory.getbasetemp() / "noise"
    pages = dict(SMALL.pages())
    for _ in range(data.draw(st.integers(1, 4))):
        row = np.zeros(8192, dtype="<u8")
        for _ in range(data.draw(st.integers(1, 6))):
            at = data.draw(st.sampled_from([0, 1, 31, 32, 63, 511, 512, 960, 1023, 8191]))
            row[at] = data.draw(st.sampled_from([*map(int, SMALL.pa), 0x40000000, 0x80000000])) | data.draw(
                st.sampled_from([1, 3, 0x701, 0x703])
            )
        pages[0x90000000 + 65536 * data.draw(st.integers(0, 8))] = row.tobytes()
    loads = [builder.Load(0, pa, 65536, 65536) for pa in sorted(pages)]
    builder.write_elf(path, SMALL, loads=loads, info={}, pages=sorted(pages.items()))
    try:
        found = read_vmcore(path)
    except ImageError as error:
        assert "candidates" in str(error) and f"root {ROOT:#x}" in str(error)
        return
    assert found.image.description.root_pa == ROOT
    assert [root.pa for root in search(found.memory, None, None).roots] == [ROOT]
    found.memory.close()


@pytest.mark.parametrize(
    ("granule", "va_bits", "end"),
    [
        (4096, 39, 0xFFFF_FFC0_0000_0000),
        (4096, 48, 0xFFFF_8000_0000_0000),
        (4096, 52, 0xFFFF_8000_0000_0000),
        (16384, 47, 0xFFFF_C000_0000_0000),
        (16384, 52, 0xFFFF_C000_0000_0000),
        (65536, 52, 0xFFFF_8000_0000_0000),
    ],
)
def test_the_linear_map_ends_where_the_least_bits_have_their_middle(granule: int, va_bits: int, end: int) -> None:
    """``_PAGE_END(VA_BITS_MIN)``, and that is 47 with 16K pages."""
    assert page_end(granule, va_bits) == end
