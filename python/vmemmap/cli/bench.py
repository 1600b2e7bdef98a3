"""``vmemmap bench``."""

from __future__ import annotations

import click

from . import json_option, print_json


@click.command("bench")
@json_option
def command(as_json: bool) -> None:
    """Measure the project's own speed, each figure beside the limit it is compared with."""
    from .. import _core
    from ..bench import rows

    if _core.BUILD_PROFILE != "release":
        click.echo(f"vmemmap: this is a {_core.BUILD_PROFILE} build; its times mean nothing", err=True)
    if as_json:
        print_json([row.to_dict() for row in rows()])
        return
    click.echo(f"{'':24} {'value':>12} {'limit':>12} {'':6} {'ratio':>7}")
    for row in rows():
        click.echo(f"{row.name:24} {row.value:12.4g} {row.limit:12.4g} {row.unit:6} {row.ratio:7.3f}  {row.what}")
