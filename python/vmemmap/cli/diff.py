"""``vmemmap diff``."""

from __future__ import annotations

from pathlib import Path

import click

from . import HOLDS, INCONCLUSIVE, VIOLATED, hint_options, json_option, print_json, print_notes
from ._html import html_option, save, vmemmap_text


@click.command("diff")
@click.argument("a")
@click.argument("b")
@hint_options
@html_option
@json_option
def command(a: str, b: str, as_json: bool, html: Path | None, ram: tuple[str, ...], **hints: str | None) -> int:
    """Print what changed in vmemmap from dump A to dump B: hugepages, blocks, tables, sections, frames.

    A and B are table images (.npz), kernel_page_tables texts or vmcores, in any mix. Exit codes: 1 vmemmap
    differs, 3 it does not, but tables of it are missing from a dump.

    \b
    Examples:
      vmemmap diff before.npz after.npz
      vmemmap diff before.txt after.txt --json
      vmemmap diff before.npz after.npz --html diff.html
    """
    from .. import saving
    from ..dumps import difference
    from ._progress import waiting

    if html is not None:
        saving.check(html, "the page")
    with waiting(f"comparing {a} and {b}"):
        answer = difference.diff(a, b, ram=ram, **hints)
    if as_json:
        print_json(answer.to_dict())
    else:
        print_notes(answer.notes)
        click.echo(answer.summary)
    if html is not None:
        from ..report.pages import diff_page

        save(html, lambda: diff_page(answer, [vmemmap_text(f, ram, hints) for f in (a, b)], ["vmemmap", "diff", a, b]))
    if answer:
        return VIOLATED
    return INCONCLUSIVE if answer.vmemmap_gaps else HOLDS
