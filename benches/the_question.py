"""Write docs/the-question.md from results: searches of some minutes, so that no budget decides what is found."""

from __future__ import annotations

from pathlib import Path

from vmemmap.comparison import comparing, machine_file, page, published

OUT = Path(__file__).resolve().parent.parent / "docs/the-question.md"


def main() -> None:
    arm64 = machine_file.load("arm64")
    # `shorten=None`: a fixed amount of work, so that steps do not depend on the host.
    conditions = comparing.compare_choices(comparing.without_policy("R32"), arm64, (2,), seconds=600, shorten=None)
    approaches = comparing.compare_choices(comparing.the_approaches(), arm64, page.CPUS, seconds=600, shorten=None)
    cells, _ = published.table()
    OUT.write_text(page.page(conditions, approaches, cells, published.unmap_range()), encoding="utf-8")


if __name__ == "__main__":
    main()
