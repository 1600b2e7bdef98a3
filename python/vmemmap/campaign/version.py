"""Which code answered: a verdict is worth what the code is that gave it."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .. import _core

__all__ = ["Code", "code", "commit", "difference"]


@dataclass(frozen=True)
class Code:
    """The package's version, and digests of the sources of its two halves."""

    version: str
    #: Of the Python sources.
    package: str
    #: Of the Rust sources that the core was built from.
    core: str

    @property
    def id(self) -> str:
        """The same for the same sources, on whatever machine they were built."""
        return f"{self.package}-{self.core}"


@cache
def code() -> Code:
    """Of the code that runs here. A worker calls this as well."""
    digest = hashlib.sha256()
    root = Path(__file__).parent.parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return Code(_core.VERSION, digest.hexdigest()[:12], _core.SOURCES)


def difference(ours: Code, theirs: Code) -> str | None:
    """What of the other's code is not as ours, in words; None if all agrees."""
    if ours.version != theirs.version:
        return f"has vmemmap {theirs.version}, the coordinator {ours.version}"
    halves = [("package", ours.package, theirs.package), ("core", ours.core, theirs.core)]
    found = [f"{name} {there} (here {here})" for name, here, there in halves if here != there]
    return f"has vmemmap {theirs.version} of other sources: {', '.join(found)}" if found else None


@cache
def commit() -> str | None:
    """The commit that these sources were checked out from, if that can be told; ``…-dirty`` if they were changed
    since."""
    here = Path(__file__).parent.parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A checkout of something else may be all around an installed package.
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    found = git("rev-parse", "--short=12", "HEAD")
    return (
        f"{found}-dirty"
        if found and git("status", "--porcelain", "--untracked-files=no", "--", ":/python", ":/rust")
        else found
    )
