"""Files that mean harm, through the Python interface and the command line: refused in one line or taken as they are,
nothing written, and no more memory than a small file justifies.
"""

from __future__ import annotations

import copy
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmemmap import _core
from vmemmap.cli import main
from vmemmap.dumps.image import read_npz
from vmemmap.dumps.ptdump import load_ptdump
from vmemmap.errors import ImageError
from vmemmap.machine.machine import Machine

CAPTURES = Path(__file__).parents[1] / "captures"
SMALL = CAPTURES / "6.1-64k" / "B.npz"
TEXTS = [path.read_bytes() for path in sorted(CAPTURES.glob("*/[AB].ptdump.txt"))]


def command_line(path: Path) -> int:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["ptdump", str(path)])
    if code == 0:
        # What stood around a text, and was left out, is said.
        assert all(line.startswith("vmemmap: note: ") for line in err.getvalue().splitlines()), err.getvalue()
    else:
        assert code == 2 and out.getvalue() == "", (code, out.getvalue()[:100])
        assert len(err.getvalue().splitlines()) == 1 and "internal error" not in err.getvalue(), err.getvalue()
        assert path.stem in err.getvalue(), err.getvalue()
    return code


def held(path: Path, load: Any) -> bool:
    """Whether both ways in take the file; both take it, or both refuse it in one line."""
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    try:
        load(path)
        taken = True
    except ImageError as error:
        assert len(str(error).splitlines()) == 1 and path.stem in str(error), str(error)
        taken = False
    assert command_line(path) == (0 if taken else 2)
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before, "nothing is written"
    return taken


def text_held(path: Path) -> bool:
    return held(path, lambda path: load_ptdump(path).to_bytes())


def image_held(path: Path) -> bool:
    return held(path, lambda path: Machine.load(path).ptdump())


@pytest.fixture
def small(tmp_path: Path) -> Path:
    for suffix in (".npz", ".json"):
        shutil.copy(SMALL.with_suffix(suffix), tmp_path / f"B{suffix}")
    return tmp_path / "B.npz"


# Text.


def spliced(pieces: list[tuple[int, int, int]]) -> bytes:
    """(which text, first byte, length) of each piece."""
    return b"".join(TEXTS[which][at % len(TEXTS[which]) :][:length] for which, at, length in pieces)


@settings(max_examples=150, deadline=None)
@given(
    pieces=st.lists(
        st.tuples(st.integers(0, len(TEXTS) - 1), st.integers(0, 1 << 14), st.integers(0, 1 << 13)), max_size=4
    )
)
def test_pieces_of_texts_in_any_order(
    pieces: list[tuple[int, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("spliced") / "text.txt"
    path.write_bytes(spliced(pieces))
    text_held(path)


@settings(max_examples=100, deadline=None)
@given(
    which=st.integers(0, len(TEXTS) - 1),
    lines=st.lists(st.integers(0, 150), max_size=8),
    edit=st.sampled_from(["drop", "double", "swap", "blank", "crlf", "tab", "upper", "indent", "strip"]),
)
def test_texts_edited_by_lines(
    which: int, lines: list[int], edit: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = TEXTS[which].splitlines(keepends=True)
    for line in lines:
        i = line % len(rows)
        row = rows[i]
        rows[i] = {
            "drop": b"",
            "double": row + row,
            "swap": rows[i - 1],
            "blank": b"\n" + row,
            "crlf": row.replace(b"\n", b"\r\n"),
            "tab": row.replace(b"   ", b"\t"),
            "upper": row.upper(),
            "indent": b" " + row,
            "strip": row.rstrip() + b"\n",
        }[edit]
    path = tmp_path_factory.mktemp("edited") / "text.txt"
    path.write_bytes(b"".join(rows))
    taken = text_held(path)
    changed = ("drop", "double", "swap", "upper", "blank", "crlf", "tab", "indent", "strip")
    assert taken is (b"".join(rows) == TEXTS[which]) or edit in changed, "only headers may come, go and be anything"
    if edit in ("blank", "crlf", "tab", "indent", "strip"):
        assert taken and load_ptdump(path).to_bytes() == TEXTS[which], "what stands around a line is taken away"


# Archives.


def headers(archive: bytes) -> Iterator[int]:
    """Offsets of what is no packed data: member headers, the directory, its end, the headers of the arrays."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        for member in file.infolist():
            yield from range(member.header_offset, member.header_offset + 30 + len(member.filename) + 24)
    yield from range(archive.index(b"PK\x01\x02"), len(archive))


@pytest.mark.parametrize(
    "change",
    [lambda b: 0, lambda b: 0xFF, lambda b: (b + 1) % 256, lambda b: b ^ 0x80],
    ids=["zero", "ones", "next", "high"],
)
def test_every_byte_of_every_header_of_an_archive(change: Any, small: Path) -> None:
    raw = small.read_bytes()
    whole = read_npz(small)
    taken = 0
    for at in sorted(set(headers(raw))):
        bad = bytearray(raw)
        bad[at] = change(bad[at])
        small.write_bytes(bad)
        try:
            image = read_npz(small)
        except ImageError as error:
            assert len(str(error).splitlines()) == 1
        else:
            taken += 1
            assert np.array_equal(image.words, whole.words) and np.array_equal(image.pa, whole.pa), at
    assert taken, "dates and versions are nobody's business"


@settings(max_examples=60, deadline=None)
@given(cut=st.tuples(st.integers(0, 110_000), st.integers(0, 110_000), st.integers(0, 3000)))
def test_an_archive_with_a_piece_of_another_inside(
    cut: tuple[int, int, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("spliced") / "B.npz"
    raw, other = SMALL.read_bytes(), SMALL.with_name("A.npz").read_bytes()
    at, start, length = cut
    path.write_bytes(raw[:at] + other[start : start + length] + raw[at + length * (at % 2) :])
    shutil.copy(SMALL.with_suffix(".json"), path.with_suffix(".json"))
    image_held(path)


# JSON.

HOSTILE: list[Any] = [
    *(None, True, False, 0, -1, 1, 3, 1 << 20, 1 << 62, (1 << 64) - 1, 1 << 64, -(1 << 63), 10**300),
    *(1e308, 0.5, float("nan"), float("inf")),
    *("", "0", "0x", "0x0", "-0x1", "0xffffffffffffffff", "0x1ffffffffffffffff", "0x4000_0000"),
    *("x" * 1000, "\x00", "\ud800", "é\n\x1b[2J"),
    *([], {}, [[]], [None], [0, 0], [[0, 0]], [[1 << 62, 1 << 62]], {"": {}}),
    [{"base": 0, "size": 1 << 52, "kind": "boot"}],
]


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every key of every object, and the first two items of every list."""
    inside = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in inside:
        yield (*path, key)
        yield from places(item, (*path, key))


def changed(data: Any, path: tuple[str | int, ...], value: Any) -> Any:
    data = copy.deepcopy(data)
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return data


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: ascii(value)[:30])
def test_every_key_of_the_json_with_a_value_it_cannot_have(value: Any, small: Path) -> None:
    beside = small.with_suffix(".json")
    data = json.loads(beside.read_text())
    paths = list(places(data))
    assert len(paths) > 50
    for path in paths:
        beside.write_text(json.dumps(changed(data, path, value)))
        try:
            Machine.load(small).ptdump()
        except ImageError as error:
            assert len(str(error).splitlines()) == 1 and str(error).startswith(str(small.with_suffix(""))), (
                path,
                str(error),
            )
    # The command line once, with the last key that was changed to something else.
    image_held(small)


NO_DESCRIPTION = [
    *("[" * 500, '{"a":' * 200, '{"guest":' + "[" * 400 + "]" * 400 + "}"),
    *('{"granule": ' + "9" * 900 + "}", '{"granule": 1e999999}', '"' + "\\u0000" * 150 + '"', "\ufeff{}", "NaN"),
    *('{"ram": [' + "[]," * 300 + "[]]}", '{"kernel": "6.1", "kernel": "6.12"}'),
]


@pytest.mark.parametrize("text", NO_DESCRIPTION, ids=lambda text: ascii(text)[:30])
def test_a_json_of_a_kilobyte_that_is_no_description(text: str, small: Path) -> None:
    small.with_suffix(".json").write_text(text)
    assert not image_held(small)


# Memory.

MEASURE = """
import resource, sys
from vmemmap.{module} import {what}
from vmemmap.errors import ImageError
def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
def load(path):
    {call}
before = resident()
try:
    load(sys.argv[1])
    print("taken", end=" ")
except ImageError as error:
    print("refused", end=" ")
print((resident() - before) >> 10)
"""
LIMIT_MB = 100


def megabytes(path: Path, module: str, what: str, call: str) -> tuple[str, int]:
    """Taken or refused, and by how much a process of its own grew."""
    program = MEASURE.format(module=module, what=what, call=call)
    answer = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=100, check=True
    )
    verdict, grown = answer.stdout.split()
    return verdict, int(grown)


def write_image(path: Path, granule: int, va_bits: int, words: Any, levels: list[int], ram: int) -> None:
    layout = _core.layout(granule, va_bits, "6.1", 1 << 30)
    tables = len(levels)
    pa = (1 << 30) + np.arange(tables, dtype=np.uint64) * np.uint64(granule)
    np.savez_compressed(path, pa=pa, level=np.array(levels, np.uint8), words=np.array(words, np.uint64))
    description = {
        "kernel": "6.1",
        "granule": granule,
        "va_bits": va_bits,
        "root_pa": 1 << 30,
        "memstart": 1 << 30,
        "vmemmap_start": layout["VMEMMAP_START"],
        "vmemmap_end": layout["VMEMMAP_END"],
        "ram": [{"base": 1 << 30, "size": ram, "kind": "boot"}],
        "guest": {"hugetlb_heads_pfn_npages": []},
    }
    path.with_suffix(".json").write_text(json.dumps(description))


def used_again(granule: int, top: int, entries: int) -> tuple[list[Any], list[int]]:
    """One table of each level, the first descriptors of which all name the one below;
    pages and holes in turns below.
    """
    width = granule // 8
    words = [np.zeros(width, np.uint64) for _ in range(top, 4)]
    for i in range(3 - top):
        words[i][:entries] = ((1 << 30) + (i + 1) * granule) | 3
    words[-1][::2] = (1 << 30) | 0x00E8_0000_0000_0703
    return words, list(range(top, 4))


@pytest.mark.parametrize(
    ("granule", "va_bits", "top", "entries"),
    [(4096, 48, 0, 512), (4096, 48, 0, 16), (16384, 47, 1, 2048), (65536, 42, 2, 64)],
)
def test_a_few_tables_used_again_and_again_are_refused(
    granule: int, va_bits: int, top: int, entries: int, tmp_path: Path
) -> None:
    words, levels = used_again(granule, top, entries)
    path = tmp_path / "again.npz"
    write_image(path, granule, va_bits, words, levels, 1 << 30)
    assert path.stat().st_size < 1100
    with pytest.raises(ImageError, match="again and again"):
        Machine.load(path)
    assert not image_held(path)
    verdict, grown = megabytes(path, "machine", "Machine", "return Machine.load(path).ptdump()")
    assert verdict == "refused" and grown < LIMIT_MB


@pytest.mark.parametrize(("granule", "va_bits"), [(4096, 48), (65536, 52)])
def test_a_machine_of_as_much_memory_as_there_can_be_takes_little(granule: int, va_bits: int, tmp_path: Path) -> None:
    path = tmp_path / "large.npz"
    top = 4 - (va_bits - 4) // (granule.bit_length() - 4)
    ram = ((1 << 32) - (1 << 16)) * granule
    write_image(path, granule, va_bits, [np.zeros(granule // 8)], [top], ram)
    assert path.stat().st_size < 1100
    # With 64K pages it is more than this process has addresses for.
    verdict, grown = megabytes(path, "machine", "Machine", "m = Machine.load(path); m.ptdump(); m.check()")
    assert grown < LIMIT_MB
    assert verdict == "taken" or granule == 65536


def test_the_longest_dump_that_a_kilobyte_of_tables_has_takes_little(tmp_path: Path) -> None:
    """Tables pack a thousand to one, and each of their descriptors can be a line."""
    words, levels = used_again(65536, 1, 1)
    path = tmp_path / "long.npz"
    write_image(path, 65536, 48, words, levels, 1 << 30)
    assert path.stat().st_size < 1100
    verdict, grown = megabytes(path, "machine", "Machine", "assert Machine.load(path).ptdump().count(chr(10)) > 8000")
    assert verdict == "taken" and grown < LIMIT_MB


# Unlike a machine, which reserves as much address space as it has memory, what reads a file asks for no more than it
# uses.
LIMITED = """
import resource, sys
import numpy
from vmemmap import _core
from vmemmap.dumps import image, ptdump
from vmemmap.errors import ImageError
def load(path):
    {call}
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20),) * 2)
try:
    load(sys.argv[1])
    print("taken")
except ImageError as error:
    print("refused", error)
"""


def limited(path: Path, call: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", LIMITED.format(call=call), str(path)], capture_output=True, text=True, timeout=100
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.mark.parametrize(
    "content", [TEXTS[0], b"0x", b"", b"\n" * 1000, b"---[ a ]---\n" * 80], ids=lambda content: ascii(content[:8])
)
def test_a_small_text_is_read_within_100_mb_of_address_space(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "small.txt"
    path.write_bytes(content)
    for call in ("ptdump.load_ptdump(path).to_bytes()", "image.read_ptdump(path)"):
        taken = content == TEXTS[0] or content.startswith(b"---")
        assert limited(path, call).startswith("taken" if taken else "refused")


READ = "i = image.read_npz(path); _core.survey(_core.TableImage(i.pa, i.level, i.words, i.description))"


def test_a_small_image_is_read_within_100_mb_of_address_space(small: Path) -> None:
    assert limited(small, READ).startswith("taken")


@pytest.mark.parametrize("value", [10**300, "x" * 500, [[]] * 100, {"": None}], ids=lambda value: ascii(value)[:10])
def test_a_hostile_json_is_read_within_100_mb_of_address_space(value: Any, small: Path) -> None:
    beside = small.with_suffix(".json")
    beside.write_text(json.dumps(json.loads(beside.read_text()) | {"ptdump_markers": value, "ram": value}))
    assert limited(small, READ).startswith("refused")


@pytest.mark.parametrize("members", [1, 8])
def test_an_archive_of_zeros_is_read_within_100_mb_of_address_space(members: int, small: Path) -> None:
    """Deflate packs a thousand to one, and a name may be there many times."""
    with (
        zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as archive,
        pytest.warns(UserWarning) if members > 1 else redirect_stdout(io.StringIO()),
    ):
        for _ in range(members):
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "<u8", "fortran_order": False, "shape": (8, 8192)})
            archive.writestr("words.npy", header.getvalue() + bytes(8 * 65536))
    assert small.stat().st_size < 1100 * members
    assert limited(small, READ).startswith("refused")
