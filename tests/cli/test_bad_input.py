"""Whatever is typed or handed in: exit code 2, one line that says what and where, nothing left behind."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

CAPTURE = Path(__file__).resolve().parent.parent / "captures" / "6.1-4k" / "B.npz"


def vmemmap(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    program = "import sys; from vmemmap.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=cwd, timeout=60
    )


def complains(answer: subprocess.CompletedProcess[str], *words: str) -> None:
    assert answer.returncode == 2, answer
    assert answer.stdout == ""
    assert len(answer.stderr.splitlines()) == 1, answer.stderr
    assert "internal error" not in answer.stderr
    for word in words:
        assert word in answer.stderr


def copy_capture(to: Path) -> tuple[Path, Path]:
    image, description = to / "image.npz", to / "image.json"
    shutil.copy(CAPTURE, image)
    shutil.copy(CAPTURE.with_suffix(".json"), description)
    return image, description


def rewrite(image: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    with np.load(image) as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    change(arrays)
    np.savez_compressed(image, **arrays)


def redescribe(description: Path, **keys: object) -> None:
    known = json.loads(description.read_text())
    known.update(keys)
    description.write_text(json.dumps(known))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["layout", "--granule", "8K"], "granule"),
        (["layout", "--va-bits", "40"], "va_bits"),
        (["layout", "--va-bits", "many"], "va_bits"),
        (["layout", "--granule", "16K", "--va-bits", "52", "--kernel", "6.1"], "LPA2"),
        (["layout", "--kernel", "2.4"], "kernel"),
        (["layout", "--memstart", "-1"], "a multiple of 2M"),
        (["where", "0x48000", "--memstart", "0x40000001"], "a multiple of 2M"),
        (["campaign"], "no command given: resume, run, show; vmemmap campaign --help"),
        ([], "layout, list, litmus, map"),
        (["oops", "-", "--root", "0x40000000"], "--root"),
        (["estimate", "--memory", "lots"], "memory"),
        (["estimate", "--memory", "1G", "--hugepages", "2M=2G"], "memory"),
        (["estimate", "--memory", "1T", "--hugepages", "3M=3G"], "3M"),
        (["estimate", "--memory", "1T", "--hugepages", "2M=1M"], "2M"),
        (["estimate", "--memory", "1T", "--reserved", "3"], "reserved"),
        (["estimate"], "memory"),
        (["explore", "R6", "--workers", "0"], "workers is 0: expected a number of threads, 1 to 64"),
        (["explore", "R6", "--workers", "65"], "workers is 65"),
        (["explore", "R6", "--workers", "two"], "--workers"),
        (["ptdump"], "FILE"),
        (["ptdump", "--machine", "granule=5K"], "granule"),
        (["ptdump", "--machine", "colour=red"], "colour"),
        (["ptdump", "--machine", "1G"], "1G"),
        (["ptdump", "--machine", "boot_memory=1T,update=maybe"], "update"),
        (["nonsense"], "nonsense"),
        (["layout", "--nonsense"], "nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_call_is_told_in_one_line(arguments: list[str], word: str) -> None:
    complains(vmemmap(*arguments), word)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    complains(vmemmap("ptdump", "none.npz", cwd=tmp_path), "none.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_no_dump(tmp_path: Path) -> None:
    complains(vmemmap("ptdump", str(tmp_path)), str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"hello\n", b"PK\x03\x04", b"---[ x", b"0x12\n"], ids=repr)
def test_text_that_is_no_dump_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dump.txt"
    path.write_bytes(content)
    complains(vmemmap("ptdump", str(path)), str(tmp_path / "dump"))


def test_a_dump_cut_in_a_line_is_refused_with_its_line(tmp_path: Path) -> None:
    text = CAPTURE.with_name("B.ptdump.txt").read_bytes()
    path = tmp_path / "cut.txt"
    path.write_bytes(text[: len(text) // 2])
    complains(vmemmap("ptdump", str(path)), "cut.txt", "line")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_cut_image_is_refused(tmp_path: Path, part: float) -> None:
    image, _ = copy_capture(tmp_path)
    data = image.read_bytes()
    image.write_bytes(data[: int(len(data) * part)])
    complains(vmemmap("ptdump", str(image)), "image.npz")


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes_are_refused(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "random.npz"
    path.write_bytes(random.Random(seed).randbytes(10_000))
    complains(vmemmap("ptdump", str(path)), "random.npz")


def test_an_image_without_its_json_is_refused(tmp_path: Path) -> None:
    image, description = copy_capture(tmp_path)
    description.unlink()
    complains(vmemmap("ptdump", str(image)), "image.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"granule": 4096}', "\udcff"], ids=repr)
def test_a_broken_json_is_refused(tmp_path: Path, text: str) -> None:
    image, description = copy_capture(tmp_path)
    description.write_bytes(text.encode(errors="surrogateescape"))
    complains(vmemmap("ptdump", str(image)), "image.json")


@pytest.mark.parametrize(
    "keys",
    [
        {"granule": 65536, "va_bits": 48},
        {"granule": 4097},
        {"granule": "4K"},
        {"va_bits": 52},
        {"va_bits": None},
        {"root_pa": "0x1000"},
        {"root_pa": "root"},
        {"kernel": "4.19"},
        {"ram": []},
        {"ptdump_markers": [["0x0", "somewhere"]]},
    ],
    ids=str,
)
def test_a_json_that_contradicts_the_tables_is_refused(tmp_path: Path, keys: dict[str, object]) -> None:
    image, description = copy_capture(tmp_path)
    redescribe(description, **keys)
    complains(vmemmap("ptdump", str(image)), "image")


def root_points_nowhere(arrays: dict[str, np.ndarray]) -> None:
    words = arrays["words"]
    table = int(np.flatnonzero(arrays["level"] == 0)[0])
    index = int(np.flatnonzero(words[table])[0])
    words[table, index] = 0x0000_7FFF_F000_0003


def levels_are_wrong(arrays: dict[str, np.ndarray]) -> None:
    arrays["level"][:] = 3


def half_of_the_words_is_missing(arrays: dict[str, np.ndarray]) -> None:
    arrays["words"] = arrays["words"][:, :256]


def words_are_missing(arrays: dict[str, np.ndarray]) -> None:
    del arrays["words"]


def addresses_are_not_sorted(arrays: dict[str, np.ndarray]) -> None:
    arrays["pa"] = arrays["pa"][::-1].copy()


def words_are_floats(arrays: dict[str, np.ndarray]) -> None:
    arrays["words"] = arrays["words"].astype(np.float64)


@pytest.mark.parametrize(
    "change",
    [
        root_points_nowhere,
        levels_are_wrong,
        half_of_the_words_is_missing,
        words_are_missing,
        addresses_are_not_sorted,
        words_are_floats,
    ],
    ids=lambda change: change.__name__,
)
def test_an_image_that_contradicts_itself_is_refused(
    tmp_path: Path, change: Callable[[dict[str, np.ndarray]], None]
) -> None:
    image, _ = copy_capture(tmp_path)
    rewrite(image, change)
    complains(vmemmap("ptdump", str(image)), "image.npz")
