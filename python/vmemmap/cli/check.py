"""``vmemmap check``."""

from __future__ import annotations

from pathlib import Path

import click

from . import HOLDS, INCONCLUSIVE, VIOLATED, hint_options, json_option, print_json
from ._html import html_option, save, vmemmap_text


@click.command("check")
@click.argument("file")
@hint_options
@html_option
@json_option
def command(file: str, as_json: bool, html: Path | None, ram: tuple[str, ...], **hints: str | None) -> int:
    """Check every invariant that FILE can show: a file-system check for vmemmap.

    FILE is a table image (.npz), a kernel_page_tables text or a vmcore. Exit codes: 1 an
    invariant is violated, 3 none is, but tables are missing from the dump.

    \b
    Examples:
      vmemmap check capture.npz
      vmemmap check /proc/vmcore --json
      vmemmap check capture.npz --html check.html
      vmemmap check kernel_page_tables.txt --granule 4K --va-bits 48
    """
    from .. import saving
    from ..dumps import checking
    from ._progress import waiting

    if html is not None:
        saving.check(html, "the page")
    with waiting(f"checking {file}"):
        answer = checking.check(file, ram=ram, **hints)
    if as_json:
        print_json(answer.to_dict())
    else:
        click.echo(answer.text())
    if html is not None:
        from ..report.pages import check_page

        save(html, lambda: check_page(answer, vmemmap_text(file, ram, hints), ["vmemmap", "check", file]))
    if answer.found:
        return VIOLATED
    return INCONCLUSIVE if answer.gaps else HOLDS
