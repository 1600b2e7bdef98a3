"""Every `kernel-semantics §4.4` in code and documents leads to a heading or a numbered item of
docs/kernel-semantics.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPECIFICATION = ROOT / "docs" / "kernel-semantics.md"

SECTION = r"(?:H\d+|\d+(?:\.\d+)*)"
#: What may follow the name: `§4.4 step 3, §4.6`, `§H4 to §H7`, `§2.3, doubt 2`, and in older comments `H1, 7.9`.
CITATION = re.compile(
    rf"kernel-semantics(?:\.md)?((?:(?:\s|,|and|to)*(?:§{SECTION}|(?<=[ ,]){SECTION}|step \d+|doubt \d+))*)"
)
REFERENCE = re.compile(rf"§?({SECTION})|(step|doubt) (\d+)")
#: The mark of a comment, or a string that goes on, at the beginning of a line.
CONTINUED = re.compile(r"[\"']?\n\s*(?://[/!]?|#:?|[\"'])?[ \t]*")


def sources() -> Iterator[Path]:
    for folder, endings in (
        ("rust", ("rs",)),
        ("python", ("py", "pyi")),
        ("tests", ("py",)),
        ("benches", ("py",)),
        ("examples", ("py",)),
    ):
        for ending in endings:
            yield from sorted((ROOT / folder).rglob(f"*.{ending}"))
    yield from (path for path in sorted((ROOT / "docs").rglob("*.md")) if path != SPECIFICATION)


def specified() -> dict[str, set[str]]:
    """Sections, each with the numbers of the items in it."""
    known: dict[str, set[str]] = {}
    items: set[str] = set()
    for line in SPECIFICATION.read_text(encoding="utf-8").splitlines():
        if heading := re.match(rf"##+ ({SECTION})\.? ", line):
            items = known.setdefault(heading[1], set())
        elif item := re.match(r"\s*(\d+)\. ", line):
            items.add(item[1])
    return known


def cited() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Places, and what is cited there: sections, each with the item or none."""
    for path in sources():
        text = (
            CONTINUED.sub(" ", path.read_text(encoding="utf-8"))
            if path.suffix != ".md"
            else path.read_text(encoding="utf-8")
        )
        if path == Path(__file__):
            continue
        for found in CITATION.finditer(text):
            references: list[tuple[str, str]] = []
            for section, kind, number in REFERENCE.findall(found[1]):
                if kind == "doubt":
                    references.append(("13", number))
                elif kind:
                    references[-1] = (references[-1][0], number)
                else:
                    references.append((section, ""))
            yield f"{path.relative_to(ROOT)}: {found[0]}", references


def leads_somewhere(known: dict[str, set[str]], section: str, item: str) -> bool:
    if section in known:
        return not item or item in known[section]
    # §13.1 is item 1 of a section that has no headings of its own.
    outer, _, inner = section.rpartition(".")
    return not item and outer in known and inner in known[outer]


def test_every_citation_leads_to_a_heading_or_an_item() -> None:
    known = specified()
    citations = list(cited())
    resolved = [place for place, references in citations if all(leads_somewhere(known, *r) for r in references)]
    print(f"citations of kernel-semantics resolved: {len(resolved)}/{len(citations)}")
    lost = [place for place, _ in citations if place not in resolved]
    assert not lost
    assert len(citations) > 50


def test_a_citation_of_nothing_is_noticed() -> None:
    known = specified()
    assert (
        leads_somewhere(known, "H7", "") and leads_somewhere(known, "13.1", "") and leads_somewhere(known, "4.4", "3")
    )
    assert not any(leads_somewhere(known, *r) for r in (("H13", ""), ("13.99", ""), ("4.4", "99"), ("4.9", "")))


def test_no_text_that_is_not_shipped_is_cited() -> None:
    """The notes from which this was built are not in the repository; what they said is in docs/."""
    absent = re.compile(r"\b(explorer|models-of-style|architecture|races|house|interface|aarch64)(\.md\b| §)")
    shipped = {path.name for path in (ROOT / "docs").rglob("*.md")}
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in sources()
        if path != Path(__file__)
        for match in absent.finditer(path.read_text(encoding="utf-8"))
        if f"{match[1]}.md" not in shipped
    ]
    assert not found
