"""Seeded faults, one at a time in a copy of this tree: which test kills each (`make mutants`).

    mutants.py [--only NAME]… [--json FILE] [--record] [--check]

The faults are in seeded_faults.toml beside this file. The test that is recorded as the killer of a fault is tried
first, alone; only if it lets the fault live are the groups of tests run until one fails. `--record` writes what was
found into the list. `--check` runs nothing: it says whether each fault applies, and has a recorded killer that still
exists, or an explanation why nothing can kill it.

Exit 1 if a fault lives that should not, or dies though it is said that nothing can kill it; exit 2 if one no longer
applies, does not compile, or if a killer fails without any fault.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT: Final = Path(__file__).resolve().parent.parent
FAULTS: Final = Path(__file__).with_name("seeded_faults.toml")
COPY: Final = ROOT / "target" / "mutants" / "tree"

RUST: Final = {
    "arch": ("vmemmap-arch",),
    "kernel": ("vmemmap-kernel",),
    "image": ("vmemmap-image",),
    "explore": ("vmemmap-explore",),
    "world": ("vmemmap-machine", "vmemmap-lab"),
}
"""Groups of tests in Rust: the packages that `cargo test` is told, one after the other."""

PYTHON: Final = {
    "campaign": ("tests/campaign",),
    "dumps": ("tests/image",),
    "sizing": ("tests/test_estimate.py", "tests/test_host.py", "tests/test_layout.py"),
    "extension": ("tests/captures", "tests/invariants", "tests/api", "tests/image", "tests/scenarios"),
}
"""Groups of tests in Python, cheapest first."""

EXTENSION: Final = {
    "CARGO_PROFILE_RELEASE_LTO": "off",
    "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16",
    "CARGO_PROFILE_RELEASE_OPT_LEVEL": "2",
    "CARGO_PROFILE_RELEASE_INCREMENTAL": "true",
    "CARGO_PROFILE_RELEASE_DEBUG": "0",
}
"""How the extension is built: once for each fault, and then it explores for minutes; optimised, not linked as one."""

LIMIT: Final = 1800.0
"""Seconds after which a command is taken to hang. Whoever hangs without a test to blame is not called killed."""


class Broken(Exception):
    """What was asked cannot be decided: a fault does not compile, or a test fails without any."""


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    file: Path
    old: str
    new: str
    by: tuple[str, ...]
    killed_by: str | None
    alive: str | None

    def applies(self, root: Path) -> bool:
        path = root / self.file
        return path.is_file() and path.read_text().count(self.old) == 1


def faults() -> list[Fault]:
    return [
        Fault(f["name"], Path(f["file"]), f["old"], f["new"], tuple(f["by"]), f.get("killed_by"), f.get("alive"))
        for f in tomllib.loads(FAULTS.read_text())["fault"]
    ]


# ---- killers: `PACKAGE --lib|--test TARGET|--doc [NAME]`, what `cargo test -p` is told; or what pytest is told -------


def is_python(killer: str) -> bool:
    return killer.startswith("tests/")


def parsed(killer: str) -> tuple[str, tuple[str, ...], str | None]:
    """The package, what selects the target in it, and the name of the test (`None`: the target as a whole)."""
    package, kind, *rest = killer.split(" ")
    width = 1 if kind == "--test" else 0
    return package, (kind, *rest[:width]), rest[width] if len(rest) > width else None


def program(killer: str) -> str:
    """What has to be built and started for it."""
    if is_python(killer):
        return killer.partition("::")[0]
    package, target, _ = parsed(killer)
    return f"{package} {' '.join(target)}"


def exists(killer: str) -> bool:
    """Whether that test still stands in the sources, by name."""
    if is_python(killer):
        file, *names = re.sub(r"\[.*", "", killer).split("::")
        path = ROOT / file
        return path.is_file() and all(
            re.search(rf"^\s*(?:def|class) {n}\b", path.read_text(), re.MULTILINE) for n in names
        )
    package, target, name = parsed(killer)
    crate = ROOT / "rust" / package.removeprefix("vmemmap-")
    if target[0] == "--test":
        sources = [crate / "tests" / f"{target[1]}.rs", *(crate / "tests" / target[1]).glob("**/*.rs")]
    else:
        sources = list((crate / "src").glob("**/*.rs"))
    texts = [path.read_text() for path in sources if path.is_file()]
    wanted = None if name is None or target[0] == "--doc" else name.rsplit("::", 1)[-1]
    return bool(texts) and (wanted is None or any(re.search(rf"\bfn {wanted}\b", text) for text in texts))


# ---- running ---------------------------------------------------------------------------------------------------------


def copy_tree() -> None:
    """The files of the last commit and what was changed since, no other source, and what was built there before."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    names = {name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()}
    for name in names:
        source, target = ROOT / name, COPY / name
        if not target.exists() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    # A module that has become a folder would be there twice.
    for folder in ("rust", "fuzz", "python", "tests"):
        for path in (COPY / folder).rglob("*"):
            if path.suffix in (".rs", ".py") and path.relative_to(COPY).as_posix() not in names:
                path.unlink()


def command(arguments: Sequence[str], **more: str) -> tuple[int | None, str]:
    """The exit status, `None` if the command was still running after [`LIMIT`]; and what it printed."""
    environment = {
        "PROPTEST_RNG_SEED": "1",
        **os.environ,
        "PYTHONPATH": str(COPY / "python"),
        "CARGO_TERM_COLOR": "never",
        "CARGO_TARGET_DIR": str(COPY / "target"),
        **more,
    }
    with subprocess.Popen(
        arguments,
        cwd=COPY,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            text, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None, process.communicate()[0]
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, text


def cargo_test(package: str, *arguments: str) -> str | None:
    """The first test that fails, as a killer; `None` if none does."""
    code, text = command(["cargo", "test", "-p", package, *arguments])
    if code == 0:
        return None
    if code is None:
        raise Broken(f"cargo test -p {package} {' '.join(arguments)} hangs")
    ended = re.search(r"^error: .*to rerun pass `(?:-p \S+ )?(--\S+(?: \S+)?)`", text, re.MULTILINE)
    if ended is None:
        raise Broken(f"does not compile:\n{text[-2000:]}")
    found = re.search(r"^test (\S+)(?: - should panic)? \.\.\. FAILED$", text, re.MULTILINE)
    return f"{package} {ended.group(1)}" + (f" {found.group(1)}" if found else "")


def pytest(tests: Iterable[str]) -> str | None:
    code, text = command(["cargo", "build", "--release", "--quiet", "-p", "vmemmap-python"], **EXTENSION)
    if code != 0:
        raise Broken(f"the extension does not build:\n{text[-2000:]}")
    # Copied each time: what lies there may have been built for the fault before.
    shutil.copyfile(COPY / "target" / "release" / "lib_core.so", COPY / "python" / "vmemmap" / "_core.abi3.so")
    code, text = command([sys.executable, "-m", "pytest", "-q", "-x", *tests])
    if code is None:
        raise Broken(f"pytest {' '.join(tests)} hangs")
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
    if code != 0 and found is None:
        raise Broken(f"pytest ended with {code}:\n{text[-2000:]}")
    return found.group(1) if found else None


def kills(killer: str) -> bool:
    if is_python(killer):
        return pytest([killer]) is not None
    package, target, name = parsed(killer)
    return cargo_test(package, *target, *(("--", "--exact", name) if name else ())) is not None


def targets(package: str) -> list[tuple[str, ...]]:
    """What a package has of tests: its own, then one program each."""
    crate = COPY / "rust" / package.removeprefix("vmemmap-")
    return [("--lib",), *(("--test", path.stem) for path in sorted((crate / "tests").glob("*.rs"))), ("--doc",)]


def files(group: str, seen: Counter[str]) -> list[str]:
    """The files of a group of tests in Python, in the order of the group, those that `seen` killed most first."""
    found = [
        str(file.relative_to(COPY))
        for path in PYTHON[group]
        for file in (sorted((COPY / path).glob("**/test_*.py")) if (COPY / path).is_dir() else [COPY / path])
    ]
    return sorted(found, key=lambda file: -seen[file])


TOOK: Final[dict[str, float]] = {}
"""Seconds of each program when it was last run without a kill."""


def failing(group: str, seen: Counter[str]) -> str | None:
    """The first test of the group that fails; `None` if none does.

    Program by program, so that nothing is built beyond the one that fails; first those that `seen` killed most, last
    those that take long.
    """
    if group in PYTHON:
        return next((killer for file in files(group, seen) if (killer := pytest([file])) is not None), None)
    for package in RUST[group]:
        programs = {f"{package} {' '.join(target)}": target for target in targets(package)}
        for name in sorted(programs, key=lambda name: (-seen[name], TOOK.get(name, 0.0))):
            began = time.monotonic()
            if (killer := cargo_test(package, *programs[name])) is not None:
                return killer
            TOOK[name] = time.monotonic() - began
    return None


def without_faults(killers: Iterable[str]) -> str | None:
    """Which of these tests fails without any fault; the tests of one target run at once."""
    wanted = sorted(set(killers))
    programs: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    whole: set[tuple[str, tuple[str, ...]]] = set()
    for package, target, name in map(parsed, (k for k in wanted if not is_python(k))):
        names = programs.setdefault((package, target), [])
        if name is None:
            whole.add((package, target))
        else:
            names.append(name)
    for (package, target), names in programs.items():
        only = () if (package, target) in whole else ("--", "--exact", *names)
        if (test := cargo_test(package, *target, *only)) is not None:
            return test
    python = [k for k in wanted if is_python(k)]
    return pytest(python) if python else None


# ---- the list --------------------------------------------------------------------------------------------------------


def record(fault: Fault, killer: str) -> None:
    """Writes the killer beneath the groups of that fault."""
    text = FAULTS.read_text()
    start = text.index(f'[[fault]]\nname = "{fault.name}"\n')
    end = text.find("[[fault]]", start + 1)
    part = text[start : end if end >= 0 else len(text)]
    part = re.sub(r"^killed_by = .*\n", "", part, flags=re.MULTILINE)
    part = re.sub(
        r"^(by = .*)$", lambda by: f"{by.group(1)}\nkilled_by = {json.dumps(killer)}", part, count=1, flags=re.MULTILINE
    )
    FAULTS.write_text(text[:start] + part + (text[end:] if end >= 0 else ""))


def refused(message: str) -> NoReturn:
    print(f"mutants: {message}", file=sys.stderr)
    sys.exit(2)


def killer_of(fault: Fault, seen: Counter[str]) -> str | None:
    """Put in, tried, taken out again."""
    path = COPY / fault.file
    text = path.read_text()
    path.write_text(text.replace(fault.old, fault.new))
    try:
        if fault.killed_by is not None and kills(fault.killed_by):
            return fault.killed_by
        return next((test for group in fault.by if (test := failing(group, seen)) is not None), None)
    finally:
        path.write_text(text)


def run(chosen: Sequence[Fault], to_json: Path | None, keep: bool) -> int:
    copy_tree()
    recorded = {f.killed_by for f in chosen if f.killed_by is not None}
    if (test := without_faults(recorded)) is not None:
        raise Broken(f"without any fault {test} fails")
    rows: list[dict[str, Any]] = []
    seen: Counter[str] = Counter()
    wrong = 0
    for fault in chosen:
        began = time.monotonic()
        try:
            killer, broken = killer_of(fault, seen), None
        except Broken as error:
            killer, broken = None, str(error)
        expected = broken is None and (killer is None) == (fault.alive is not None)
        wrong += not expected
        if killer is not None:
            seen[program(killer)] += 1
        seconds = round(time.monotonic() - began, 1)
        rows.append(
            {
                "fault": fault.name,
                "file": str(fault.file),
                "killed_by": killer,
                "as_recorded": killer == fault.killed_by,
                "alive": fault.alive,
                "broken": broken,
                "seconds": seconds,
            }
        )
        said = f"killed by {killer}" if killer else broken or f"ALIVE: {fault.alive or 'nobody knows why'}"
        print(f"{'  ' if expected else '! '}{fault.name:44} {said}  ({seconds:.0f} s)", flush=True)
        if to_json:
            to_json.write_text(json.dumps(rows, indent=1) + "\n")
        if keep and killer is not None and killer != fault.killed_by:
            record(fault, killer)
    # Those that were found now: a test that fails anyway kills nothing.
    if (test := without_faults({r["killed_by"] for r in rows if r["killed_by"]} - recorded)) is not None:
        raise Broken(f"without any fault {test} fails")
    killed = sum(row["killed_by"] is not None for row in rows)
    first = sum(row["killed_by"] is not None and row["as_recorded"] for row in rows)
    alive = sum(row["killed_by"] is None and row["broken"] is None for row in rows)
    print(
        f"{killed} of {len(rows)} killed ({first} by the test that is recorded), {alive} alive, {wrong} not as expected"
    )
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="this fault alone; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there, after each fault")
    parser.add_argument("--record", action="store_true", help="write the killers that were found into the list")
    parser.add_argument("--check", action="store_true", help="only whether every fault applies and every killer exists")
    options = parser.parse_args()
    chosen = [f for f in faults() if not options.only or f.name in options.only]
    gone = [f.name for f in chosen if not f.applies(ROOT)]
    if gone or not chosen:
        refused(f"{', '.join(gone) or 'no such fault'}: its text stands not once in its file")
    lost = [f"{f.name} ({f.killed_by})" for f in chosen if f.killed_by is not None and not exists(f.killed_by)]
    if lost:
        refused(f"the test that is recorded is gone: {', '.join(lost)}")
    if options.check:
        both = [f.name for f in chosen if f.killed_by is not None and f.alive is not None]
        if both:
            refused(f"killed_by and alive: {', '.join(both)}")
        unknown = [f.name for f in chosen if f.killed_by is None and f.alive is None]
        if unknown:
            refused(f"neither killed_by nor alive (make mutants RECORD=1 finds out): {', '.join(unknown)}")
        print(f"{len(chosen)} faults apply, {sum(f.killed_by is not None for f in chosen)} recorded killers exist")
        return 0
    # A parent in the background may have had it ignored, and whoever inherits that cannot be interrupted by a test.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return run(chosen, options.json, options.record)
    except Broken as error:
        refused(str(error))


if __name__ == "__main__":
    sys.exit(main())
