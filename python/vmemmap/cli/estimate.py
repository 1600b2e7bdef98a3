"""``vmemmap estimate``."""

from __future__ import annotations

import click

from . import json_option, print_json


@click.command("estimate")
@click.option("--memory", required=True, help="RAM of the machine, like 1T.")
@click.option("--hugepages", multiple=True, metavar="SIZE=MEMORY", help="Memory in hugepages of a size, like 2M=400G; may be repeated.")
@click.option("--granule", default="4K", show_default=True, help="4K, 16K or 64K.")
@click.option("--reserved", type=click.Choice(["1", "2"]), default="1", show_default=True, help="vmemmap pages kept for each: 2 in 2021.")
@click.option("--mapping", type=click.Choice(["blocks", "basepages"]), default="blocks", show_default=True, help="How vmemmap is mapped at boot.")
@json_option
def command(memory: str, hugepages: tuple[str, ...], granule: str, reserved: str, mapping: str, as_json: bool) -> None:
    """Print what HVO saves, and what tables and splits cost."""
    from .. import estimate as estimates

    answer = estimates.estimate(memory, hugepages, granule=granule, reserved=int(reserved), mapping=mapping)
    if as_json:
        print_json(answer.to_dict())
    else:
        click.echo(answer.text())
