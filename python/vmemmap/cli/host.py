"""``vmemmap host``."""

from __future__ import annotations

import click

from . import json_option, print_json


@click.command("host")
@click.option(
    "--root", default="/", metavar="DIR", help="Read /proc and /sys below DIR, as from a sosreport.", show_default=True
)
@click.option("--page-size", help="Base page size, like 4K, if DIR does not tell.")
@json_option
def command(root: str, page_size: str | None, as_json: bool) -> None:
    """Print what this Linux host has (hugepages, HVO, memory blocks, page size) and what HVO saves or would save.
    Reads only.

    \b
    Examples:
      vmemmap host
      vmemmap host --root sosreport-node7/ --page-size 4K --json
    """
    from ..sizing import host as hosts

    answer = hosts.host(root, page_size)
    if as_json:
        print_json(answer.to_dict())
    else:
        click.echo(answer.text())
