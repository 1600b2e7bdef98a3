"""Image files: captures read and written back, damage refused in one line, nothing left behind."""

from __future__ import annotations

import io
import json
import random
import resource
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmemmap import _core
from vmemmap.dumps.image import kind_of, read_npz, read_ptdump, write_npz
from vmemmap.dumps.image_json import kernel_behaviour
from vmemmap.errors import ImageError, SpecError, VmemmapError

CAPTURES = Path(__file__).parents[1] / "captures"
IMAGES = sorted(CAPTURES.glob("*/*.npz"))
TEXTS = sorted(CAPTURES.glob("*/*.ptdump.txt"))


def identity(path: Path) -> str:
    return f"{path.parent.name}-{path.name.split('.')[0]}"


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """A small capture of its own to damage: 64K, 15 tables."""
    for suffix in (".npz", ".json"):
        shutil.copy(CAPTURES / "6.1-64k" / f"B{suffix}", tmp_path / f"B{suffix}")
    return tmp_path / "B.npz"


def refused(path: Path, **arguments: Any) -> str:
    with pytest.raises(ImageError) as caught:
        read_npz(path, **arguments)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(str(path.with_suffix(""))), text
    return text


def verified(path: Path, **arguments: Any) -> _core.TableImage:
    image = read_npz(path, **arguments)
    return _core.TableImage(image.pa, image.level, image.words, image.description)


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    beside = path.with_suffix(".json")
    data = json.loads(beside.read_text())
    change(data)
    beside.write_text(json.dumps(data))


def edit_arrays(path: Path, **arrays: Any) -> None:
    with np.load(path) as old:
        new = {name: old[name] for name in old.files}
    new.update(arrays)
    np.savez(path, **{name: array for name, array in new.items() if array is not None})


def test_the_captures_are_all_there() -> None:
    assert len(IMAGES) == len(TEXTS) == 17


@pytest.mark.parametrize("path", IMAGES, ids=identity)
def test_a_capture_is_read_and_its_tables_agree(path: Path) -> None:
    image = read_npz(path)
    data = json.loads(path.with_suffix(".json").read_text())
    assert image.pa.shape == (data["tables"],)
    assert image.description.kernel == path.parent.name.split("-")[0]
    assert [list(page) for page in image.description.hugepages] == data["guest"]["hugetlb_heads_pfn_npages"]
    assert image.description.hvo is True
    verified(path)


@pytest.mark.parametrize("path", IMAGES, ids=identity)
def test_what_is_written_is_read_back_the_same(path: Path, tmp_path: Path) -> None:
    image = read_npz(path)
    write_npz(tmp_path / "copy.npz", image)
    copy = read_npz(tmp_path / "copy.npz")
    assert copy.description == image.description
    for name in ("pa", "level", "words"):
        assert np.array_equal(getattr(copy, name), getattr(image, name))
    with np.load(tmp_path / "copy.npz", allow_pickle=False) as arrays:
        assert sorted(arrays.files) == ["level", "pa", "words"]
        assert (arrays["pa"].dtype, arrays["level"].dtype, arrays["words"].dtype) == ("uint64", "uint8", "uint64")
    original, written = (json.loads(p.read_text()) for p in (path.with_suffix(".json"), tmp_path / "copy.json"))
    same = ("granule", "va_bits", "table_levels", "root_pa", "page_offset", "vmemmap_start", "vmemmap_end", "memstart")
    for key in (*same, "ptdump_markers", "tables", "tables_by_level", "kernel", "struct_page_size", "section_size"):
        assert written[key] == original[key], key
    assert written["guest"]["hugetlb_heads_pfn_npages"] == original["guest"]["hugetlb_heads_pfn_npages"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.json", "copy.npz"]


def test_equal_tables_make_equal_files(tmp_path: Path) -> None:
    image = read_npz(IMAGES[0])
    write_npz(tmp_path / "a.npz", image)
    write_npz(tmp_path / "b.npz", image)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_an_image_that_cannot_be_written_leaves_the_old_one_alone(capture: Path) -> None:
    image = read_npz(capture)
    before = {p.name: p.read_bytes() for p in capture.parent.iterdir()}
    with pytest.raises(ValueError, match="invalid literal"):
        write_npz(capture, replace(image, words=np.array([["x"]])))
    assert {p.name: p.read_bytes() for p in capture.parent.iterdir()} == before


def test_writing_to_a_place_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    image = read_npz(IMAGES[0])
    with pytest.raises(ImageError, match="cannot be written"):
        write_npz(tmp_path / "missing" / "x.npz", image)
    with pytest.raises(SpecError, match=r"ends in \.npz"):
        write_npz(tmp_path / "x.dat", image)
    assert list(tmp_path.iterdir()) == []


def test_the_kernel_may_be_named_by_the_caller(capture: Path) -> None:
    assert read_npz(capture, kernel="6.12.117").description.kernel == "6.12.117"
    edit_json(capture, lambda d: d.pop("kernel"))
    assert "kernel is missing" in refused(capture)
    assert read_npz(capture, kernel="2021").description.kernel == "2021"
    with pytest.raises(SpecError):
        read_npz(capture, kernel="6.2")


@pytest.mark.parametrize(
    ("release", "behaviour"),
    [
        ("6.1.192 (Debian linux-source-6.1), one line added", "6.1"),
        ("6.12 (Debian linux-source-6.12), one line added", "6.12"),
        ("6.12.9", "6.12"),
        ("6.12.117-arm64", "6.12.117"),
        ("5.14.0", "2021"),
        ("2021", "2021"),
        ("6.6.1", None),
        ("mainline", None),
    ],
)
def test_a_release_is_given_the_behaviour_that_is_modelled_for_it(release: str, behaviour: str | None) -> None:
    assert kernel_behaviour(release) == behaviour


def test_missing_and_foreign_files_are_named(tmp_path: Path, capture: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.npz")
    assert "cannot be read" in refused(tmp_path)
    (tmp_path / "empty.npz").write_bytes(b"")
    assert "(empty)" in refused(tmp_path / "empty.npz")
    (tmp_path / "text.npz").write_bytes(TEXTS[0].read_bytes())
    assert "not a table image" in refused(tmp_path / "text.npz")
    capture.with_suffix(".json").unlink()
    assert refused(capture).startswith(str(capture.with_suffix(".json")))


def test_files_are_told_apart_by_their_first_bytes(tmp_path: Path) -> None:
    assert kind_of(IMAGES[0]) == "npz"
    assert kind_of(TEXTS[0]) == "ptdump"
    with pytest.raises(ImageError, match=r"give the \.npz beside it"):
        kind_of(IMAGES[0].with_suffix(".json"))
    (tmp_path / "x").write_bytes(random.Random(1).randbytes(100))
    with pytest.raises(ImageError, match="neither"):
        kind_of(tmp_path / "x")


@pytest.mark.parametrize("path", TEXTS, ids=identity)
def test_the_text_of_a_kernel_is_read(path: Path) -> None:
    assert read_ptdump(path) == path.read_text()


def test_a_text_that_is_no_dump_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    lines = TEXTS[0].read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:9], "nonsense\n", *lines[9:]]))
    with pytest.raises(ImageError, match=r"x\.txt: line 10: "):
        read_ptdump(path)
    path.write_text("".join(lines[:40]))
    with pytest.raises(ImageError, match="line 40: the text ends at"):
        read_ptdump(path)


@settings(max_examples=150, deadline=None)
@given(
    which=st.sampled_from(TEXTS),
    changes=st.lists(st.tuples(st.integers(0, 1 << 14), st.integers(0, 255)), max_size=4),
)
def test_a_damaged_text_is_refused_or_read_as_it_stands(
    which: Path, changes: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    raw = bytearray(which.read_bytes())
    for at, byte in changes:
        raw[at % len(raw)] = byte
    path = tmp_path_factory.getbasetemp() / "damaged.ptdump.txt"
    path.write_bytes(raw)
    try:
        assert read_ptdump(path).encode() == raw
    except ImageError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("kept", [4, 30, 200, 5000, 60_000, 108_000, -1])
def test_a_cut_image_is_refused(capture: Path, kept: int) -> None:
    whole = capture.read_bytes()
    capture.write_bytes(whole[:kept])
    refused(capture)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_image_is_refused_or_verified_but_never_crashes(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("damaged")
    path = directory / "B.npz"
    raw = bytearray((CAPTURES / "6.1-64k" / "B.npz").read_bytes())
    shutil.copy(CAPTURES / "6.1-64k" / "B.json", directory / "B.json")
    # Mostly the places where a byte means something: member headers and the directory at the end.
    places = st.one_of(st.integers(0, 600), st.integers(len(raw) - 400, len(raw) - 1), st.integers(0, len(raw) - 1))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(places)] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        verified(path)
    except VmemmapError as error:
        assert "\n" not in str(error)
    finally:
        shutil.rmtree(directory)


@settings(max_examples=100, deadline=None)
@given(
    key=st.sampled_from(
        [
            "granule",
            "va_bits",
            "root_pa",
            "memstart",
            "vmemmap_start",
            "vmemmap_end",
            "ram",
            "ptdump_markers",
            "guest",
            "kernel",
        ]
    ),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
)
def test_a_key_of_any_value_is_refused_by_name_or_verified(
    key: str, value: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("keys")
    for suffix in (".npz", ".json"):
        shutil.copy(CAPTURES / "6.1-64k" / f"B{suffix}", directory / f"B{suffix}")
    edit_json(directory / "B.npz", lambda d: d.update({key: value}))
    try:
        verified(directory / "B.npz")
    except VmemmapError as error:
        assert "\n" not in str(error)
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize(
    "key", ["granule", "va_bits", "kernel", "root_pa", "memstart", "vmemmap_start", "vmemmap_end", "ram", "guest"]
)
def test_a_missing_key_is_named(capture: Path, key: str) -> None:
    edit_json(capture, lambda d: d.pop(key))
    assert f"key {key} is missing" in refused(capture)


def test_keys_inside_are_named_in_full(capture: Path) -> None:
    edit_json(capture, lambda d: d["guest"].pop("hugetlb_heads_pfn_npages"))
    assert "key guest.hugetlb_heads_pfn_npages is missing" in refused(capture)
    edit_json(capture, lambda d: d["guest"].update(hugetlb_heads_pfn_npages=[[1, 2], [3]]))
    assert "key guest.hugetlb_heads_pfn_npages[1]: expected" in refused(capture)
    edit_json(capture, lambda d: d["ram"][0].update(base="no"))
    assert "key ram[0].base: expected" in refused(capture)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "nul", '{"granule": ', "\xff", "[" * 100_000, '{"granule": ' + "1" * 5000 + "}"]
)
def test_a_broken_json_is_one_line(capture: Path, text: str) -> None:
    capture.with_suffix(".json").write_bytes(text.encode("latin-1"))
    assert refused(capture).startswith(str(capture.with_suffix(".json")))


def test_a_json_of_another_machine_is_refused(capture: Path) -> None:
    edit_json(capture, lambda d: d.update(va_bits=42))
    assert "page_offset" in refused(capture)
    edit_json(capture, lambda d: d.update(va_bits=52, granule=4096))
    assert "LPA2" in refused(capture)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pa": None}, "array pa is missing"),
        ({"words": np.zeros((15, 512), np.uint64)}, "wrong granule"),
        ({"words": np.zeros((14, 8192), np.uint64)}, "the same number"),
        ({"words": np.zeros((15, 8192), np.float64)}, "type <f8"),
        ({"words": np.zeros((8192, 15), np.uint64).T}, "by columns"),
        ({"pa": np.zeros((15, 1), np.uint64)}, "one dimension"),
        ({"pa": np.zeros(15, ">u8")}, "type >u8"),
        ({"level": np.zeros(15, np.uint16)}, "type <u2"),
        ({"level": np.array(["x"] * 15)}, "type <U1"),
        (
            {"pa": np.zeros(0, np.uint64), "level": np.zeros(0, np.uint8), "words": np.zeros((0, 8192), np.uint64)},
            "no table page",
        ),
    ],
)
def test_wrong_arrays_are_refused_by_name(capture: Path, arrays: dict[str, Any], said: str) -> None:
    edit_arrays(capture, **arrays)
    assert said in refused(capture)


def test_an_array_of_objects_is_never_unpickled(capture: Path) -> None:
    edit_arrays(capture, pa=np.array([print], dtype=object))
    assert "type |O" in refused(capture)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda i: {"pa": i.pa[::-1].copy()}, "must be sorted"),
        (lambda i: {"pa": i.pa + np.uint64(64)}, "no multiple of 64K"),
        (lambda i: {"level": np.full(15, 3, np.uint8)}, "root"),
        (lambda i: {"level": np.full(15, 9, np.uint8)}, "level 9"),
        (
            lambda i: {"words": np.where(i.words & np.uint64(3) == 3, i.words ^ np.uint64(1 << 40), i.words)},
            "not in the image",
        ),
    ],
)
def test_tables_that_contradict_each_other_are_refused(
    capture: Path, change: Callable[[Any], dict[str, Any]], said: str
) -> None:
    edit_arrays(capture, **change(read_npz(capture)))
    with pytest.raises(ImageError, match=said):
        verified(capture)


def test_a_wrong_root_is_refused(capture: Path) -> None:
    for root, said in ((0x4000_0000, "not among"), (int(read_npz(capture).pa[-1]), "level")):
        edit_json(capture, lambda d, root=root: d.update(root_pa=hex(root)))
        with pytest.raises(ImageError, match=said):
            verified(capture)


def npy(shape: tuple[int, ...], data: bytes = b"", descr: str = "<u8") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
    return out.getvalue() + data


@pytest.mark.parametrize("claimed", [1 << 20, 1 << 32, 1 << 62])
def test_a_small_file_that_claims_to_be_huge_allocates_nothing_of_it(capture: Path, claimed: int) -> None:
    with zipfile.ZipFile(capture, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pa.npy", npy((claimed,)))
        archive.writestr("level.npy", npy((claimed,), descr="|u1"))
        archive.writestr("words.npy", npy((claimed, 8192)))
    assert capture.stat().st_size < 1200
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "claims the shape" in refused(capture)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000, "KiB"


def test_a_member_whose_directory_entry_lies_about_its_size_is_refused(capture: Path) -> None:
    with zipfile.ZipFile(capture, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pa.npy", npy((1 << 27,), b"\0" * 8000))
    raw = bytearray(capture.read_bytes())
    entry = raw.rindex(b"PK\x01\x02")
    raw[entry + 24 : entry + 28] = (1 << 30).to_bytes(4, "little")
    capture.write_bytes(raw)
    assert "cannot hold" in refused(capture)


@pytest.mark.parametrize("path", IMAGES, ids=identity)
def test_the_survey_finds_what_the_guest_reported(path: Path) -> None:
    data = json.loads(path.with_suffix(".json").read_text())
    survey = _core.survey(verified(path))
    block = data["guest"]["memory_block_size_bytes"]
    online = {int(text.removeprefix("memory").split(":")[0]) for text in data["guest"]["memory_blocks_online"]}
    assert {section["start"] // block for section in survey["sections"]} == online
    assert all(section["online"] and not section["self_hosted"] for section in survey["sections"])
    boot = data["ram"][0]
    for section in survey["sections"]:
        assert section["early"] is (section["start"] < int(boot["base"], 16) + boot["size"])
        assert section["mapped"] * data["granule"] == data["section_size"] // data["granule"] * 64
    assert {state for _, _, state in survey["hugepages"]} <= {"optimised"}
    assert len(survey["hugepages"]) == len(data["guest"]["hugetlb_heads_pfn_npages"])
    split = {
        section["start"]
        for section in survey["sections"]
        if section["style"] == "basepages" and data["granule"] == 4096
    }
    sections_of_pages = {pfn * data["granule"] // block * block for pfn, _, _ in survey["hugepages"]}
    assert data["granule"] != 4096 or sections_of_pages <= split
    assert survey["vmemmap_extra_prot"] == 0
    assert survey["linear_hot_added_prot"] in (None, 0x00E8_0000_0000_0707)
