"""Code that documents point at is there: paths, `file: name` places, and names such as `Fault::NoFixpoint`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "examples/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]

PATH = r"(?:rust|python|tests|benches|examples|fuzz|docs)/[\w./*-]*\w/?"
PLACE = re.compile(rf"`({PATH}):\s+(?:\w+::)*(\w+)`")
BARE = re.compile(rf"`({PATH})`")
MEMBER = re.compile(r"`(?:\w+::)*((?:Fault|Flaw|Fusion|Ended|Reduction|Cpu|Model)::\w+)`")
MADE = re.compile(r"(?m)(?:`|^\$ )make ([a-z][a-z0-9-]*)")


@cache
def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def documents() -> Iterator[tuple[str, str]]:
    for path in DOCUMENTS:
        yield path.relative_to(ROOT).as_posix(), text(path)


def defines(source: str, name: str) -> bool:
    return re.search(rf"\b(?:fn|struct|enum|trait|const|static|type|mod|impl|def|class)\s+{name}\b", source) is not None


def test_places_are_where_documents_say() -> None:
    places = [(document, *found) for document, words in documents() for found in PLACE.findall(words)]
    lost = [place for place in places if not ((ROOT / place[1]).is_file() and defines(text(ROOT / place[1]), place[2]))]
    print(f"code places found: {len(places) - len(lost)}/{len(places)}")
    assert not lost, "a place that moved is written anew, here and where it is argued with"
    assert len(places) > 50


def test_paths_exist() -> None:
    paths = [(document, found) for document, words in documents() for found in BARE.findall(words)]
    lost = [(document, found) for document, found in paths if not list(ROOT.glob(found.rstrip("/")))]
    print(f"paths found: {len(paths) - len(lost)}/{len(paths)}")
    assert not lost and len(paths) > 30


def test_members_and_targets_exist() -> None:
    rust = "\n".join(text(path) for path in sorted((ROOT / "rust").rglob("*.rs")) if "target" not in path.parts)
    members = [(document, found) for document, words in documents() for found in MEMBER.findall(words)]
    there = {found: all(re.search(rf"\b{part}\b", rust) for part in found.split("::")) for _, found in members}
    lost = [(document, found) for document, found in members if not there[found]]
    targets = re.findall(r"(?m)^([a-z][a-z0-9-]*):", text(ROOT / "Makefile"))
    spoken = [(document, found) for document, words in documents() for found in MADE.findall(words)]
    lost += [(document, f"make {found}") for document, found in spoken if found not in targets]
    assert not lost and members and spoken
