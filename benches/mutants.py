"""Seeded faults, one at a time in a copy of this tree: which test kills each (`make mutants`).

    mutants.py [--only NAME]… [--json FILE] [--check]

The faults are in seeded_faults.toml beside this file. `--check` only says whether each of them still applies. Exit 1 if
one lives that should not, or dies though it is said that nothing can kill it; exit 2 if one no longer applies, does not
compile, or if a test fails without any.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT: Final = Path(__file__).resolve().parent.parent
FAULTS: Final = Path(__file__).with_name("seeded_faults.toml")
COPY: Final = ROOT / "target" / "mutants" / "tree"

RUST: Final = {
    "arch": ("-p", "vmemmap-arch"),
    "kernel": ("-p", "vmemmap-kernel"),
    "image": ("-p", "vmemmap-image"),
    "explore": ("-p", "vmemmap-explore"),
    "world": ("-p", "vmemmap-machine", "-p", "vmemmap-lab"),
}
"""Groups of tests in Rust: what `cargo test` is told."""

PYTHON: Final = {
    "campaign": ("tests/campaign",),
    "dumps": ("tests/image",),
    "sizing": ("tests/test_estimate.py", "tests/test_host.py", "tests/test_layout.py"),
    "extension": ("tests/captures", "tests/invariants", "tests/api", "tests/image", "tests/scenarios"),
}
"""Groups of tests in Python, cheapest first; `extension` builds the extension anew."""


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    file: Path
    old: str
    new: str
    by: tuple[str, ...]
    alive: str | None

    def applies(self, root: Path) -> bool:
        path = root / self.file
        return path.is_file() and path.read_text().count(self.old) == 1


def faults() -> list[Fault]:
    return [
        Fault(f["name"], Path(f["file"]), f["old"], f["new"], tuple(f["by"]), f.get("alive"))
        for f in tomllib.loads(FAULTS.read_text())["fault"]
    ]


def copy_tree() -> None:
    """The files of the last commit and what was changed since; what was built there before stays."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in names.stdout.decode().split("\0"):
        source, target = ROOT / name, COPY / name
        if not name or not source.is_file():
            continue
        if not target.exists() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def command(arguments: list[str]) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": str(COPY / "python"), "CARGO_TERM_COLOR": "never"}
    done = subprocess.run(
        arguments, cwd=COPY, env=environment, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return done.returncode, done.stdout


def fails(group: str) -> str | None:
    """The first test of the group that fails; `None` if none does."""
    if group in RUST:
        code, text = command(["cargo", "test", "--quiet", *RUST[group]])
        found = re.search(r"^(?:test )?(\S+)(?: \.\.\.|\s+---)? FAILED$|^---- (\S+) stdout ----$", text, re.MULTILINE)
        if code != 0 and re.search(r"^error(\[E\d+\])?: (?!test failed|\d+ target)", text, re.MULTILINE):
            raise SystemExit(f"mutants: does not compile:\n{text[-2000:]}")
        return None if code == 0 else (found.group(1) or found.group(2)) if found else "(a test binary ended badly)"
    extension = COPY / "python" / "vmemmap" / "_core.abi3.so"
    if group == "extension" or not extension.exists():
        code, text = command(["cargo", "build", "--quiet", "-p", "vmemmap-python"])
        if code != 0:
            raise SystemExit(f"mutants: the extension does not build:\n{text[-2000:]}")
        shutil.copyfile(COPY / "target" / "debug" / "lib_core.so", extension)
    code, text = command([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *PYTHON[group]])
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
    return None if code == 0 else found.group(1) if found else f"(pytest ended with {code})"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="this fault alone; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there")
    parser.add_argument("--check", action="store_true", help="only whether every fault still applies")
    options = parser.parse_args()
    chosen = [f for f in faults() if not options.only or f.name in options.only]
    gone = [f.name for f in chosen if not f.applies(ROOT)]
    if gone or not chosen:
        print(f"mutants: {', '.join(gone) or 'no such fault'}: its text stands not once in its file", file=sys.stderr)
        return 2
    if options.check:
        print(f"{len(chosen)} faults apply")
        return 0
    copy_tree()
    for group in dict.fromkeys(group for f in chosen for group in f.by):
        if (test := fails(group)) is not None:
            print(f"mutants: without any fault {test} fails", file=sys.stderr)
            return 2
    rows: list[dict[str, Any]] = []
    wrong = 0
    for fault in chosen:
        path = COPY / fault.file
        text = path.read_text()
        began = time.monotonic()
        path.write_text(text.replace(fault.old, fault.new))
        try:
            killer = next((test for group in fault.by if (test := fails(group)) is not None), None)
        finally:
            path.write_text(text)
        expected = (killer is None) == (fault.alive is not None)
        wrong += not expected
        rows.append({"fault": fault.name, "file": str(fault.file), "killed_by": killer, "alive": fault.alive})
        said = f"killed by {killer}" if killer else f"ALIVE: {fault.alive or 'nobody knows why'}"
        print(f"{'  ' if expected else '! '}{fault.name:44} {said}  ({time.monotonic() - began:.0f} s)", flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n")
    killed = sum(row["killed_by"] is not None for row in rows)
    print(f"{killed} of {len(rows)} killed, {len(rows) - killed} alive, {wrong} not as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
