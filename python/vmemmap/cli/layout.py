"""``vmemmap layout``."""

from __future__ import annotations

import click

from . import json_option, print_json


@click.command("layout")
@click.option("--granule", default="4K", show_default=True, help="4K, 16K or 64K.")
@click.option("--va-bits", default="48", show_default=True, help="36, 39, 42, 47, 48 or 52.")
@click.option("--kernel", default="6.1", show_default=True, help="2021, 6.1, 6.12 or 6.12.117.")
@json_option
def command(granule: str, va_bits: str, kernel: str, as_json: bool) -> None:
    """Print the VA layout, table geometry and section sharing of a machine."""
    from ..sizing import layout as layouts

    layout = layouts.layout(granule, va_bits, kernel)
    if as_json:
        print_json(layout.to_dict())
    else:
        click.echo(layout.text())
