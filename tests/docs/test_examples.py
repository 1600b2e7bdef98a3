"""Each program of examples/ runs, and says what is stable of what it says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "image"))
import vmcore_builder as builder  # noqa: E402 (its folder is no package)

EXAMPLES = ROOT / "examples"
CAPTURES = ROOT / "tests" / "captures"
LONGEST = 40
SECONDS = 600


def no_arguments(_: Path) -> list[str]:
    return []


def a_vmcore(folder: Path) -> list[str]:
    """As the kernel's /proc/vmcore would have it, of a captured machine's tables."""
    return [str(builder.write_elf(folder / "vmcore", builder.load(CAPTURES / "6.1-4k" / "B")))]


def two_captures(_: Path) -> list[str]:
    return [str(CAPTURES / "6.1-4k" / name) for name in ("A.npz", "B.npz")]


EXPECTED: dict[str, tuple[Callable[[Path], list[str]], list[str]]] = {
    "seed_race.py": (
        no_arguments,
        [
            "store: I1 I2 I3 I4 I5 I6 I8 I28 held, I19 violated",
            "clear-then-set: I1 I2 I6 violated, ",
        ],
    ),
    "price_of_an_exchange.py": (
        no_arguments,
        [
            "store              7.0 writes     0.0 exchanges     9.0 dsb     7.0 tlbi     7.0 frames",
            "swap               0.0 writes     7.0 exchanges     9.0 dsb     7.0 tlbi     7.0 frames",
            "clear-then-set    14.0 writes     0.0 exchanges     9.0 dsb     7.0 tlbi     7.0 frames",
            "bbm               14.0 writes     0.0 exchanges    11.0 dsb    15.0 tlbi     7.0 frames",
            "bbm-each          14.0 writes     0.0 exchanges    23.0 dsb    14.0 tlbi     7.0 frames",
        ],
    ),
    "compare_policy.py": (
        no_arguments,
        [
            "split=store: I1 I2 I3 I4 I5 I6 I8 I28 held, I10 I19 violated",
            "split=bbm: I2 violated, ",
            "split=bbm-stop-machine: I1 I2 I3 I4 I5 I6 I8 I28 held, I10 I19 violated",
            "split=bbm-ipi-pause: I1 I2 I3 I4 I5 I6 I8 I28 held, I10 I19 violated",
        ],
    ),
    "check_vmcore.py": (a_vmcore, ["clean: 3 tables, 8 optimised hugepages"]),
    "soak.py": (no_arguments, ["violations: 0"]),
    "diff_captures.py": (two_captures, ["513 descriptors of vmemmap changed", "optimised: PFN 0x40000, 2048 KiB"]),
}


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(EXPECTED)
    print(f"examples run: {len(EXPECTED)}")


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_is_short(name: str) -> None:
    lines = (EXAMPLES / name).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= (25 if name == "seed_race.py" else LONGEST)


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_says_what_it_is_to_say(name: str, tmp_path: Path) -> None:
    arguments, lines = EXPECTED[name]
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0 and not done.stderr, done
    for line in lines:
        assert f"\n{line}" in f"\n{done.stdout}", f"no line of these begins with {line!r}:\n{done.stdout}"
