"""``vmemmap map``."""

from __future__ import annotations

import click

from . import hint_options, json_option, print_json


@click.command("map")
@click.argument("dump")
@hint_options
@json_option
def command(dump: str, as_json: bool, ram: tuple[str, ...], **hints: str | None) -> None:
    """Print how each region is mapped: by blocks, contiguous sets, pages: bytes and shares.

    DUMP is a table image (.npz), a kernel_page_tables text or a slice of one, or a vmcore. Two dumps are compared by
    diff, which also
    tells what of this changed outside vmemmap.

    \b
    Examples:
      vmemmap map /sys/kernel/debug/kernel_page_tables
      vmemmap map capture.npz --json
    """
    from ..dumps import mapping
    from ..dumps.dump import Hints
    from ._progress import waiting

    with waiting(f"reading {dump}"):
        answer = mapping.mapping(dump, Hints.parse(ram=ram, **hints))
    if as_json:
        print_json(answer.to_json())
    else:
        click.echo(answer.text())
