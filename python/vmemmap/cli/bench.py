"""``vmemmap bench``."""

from __future__ import annotations

import sys

import click

from . import INTERRUPTED, json_option, print_json, tell


@click.command("bench")
@click.option("--quick", is_flag=True, help="Show that everything can be measured, not how fast it is.")
@json_option
def command(quick: bool, as_json: bool) -> int | None:
    """Measure the project's own speed, each figure beside the limit it is compared with.

    Times are better the smaller the ratio, rates (…/s) the larger. Both sides are measured in turns; shown are the best
    rounds, and the ratio of the medians beside it.

    \b
    Examples:
      vmemmap bench
      vmemmap bench --quick --json
    """
    from .. import _core
    from ..bench import NAMES, Row, rows

    if _core.BUILD_PROFILE != "release":
        tell(f"vmemmap: this is a {_core.BUILD_PROFILE} build; its times mean nothing")
    if not as_json:
        click.echo(f"{'':22} {'value':>11} {'limit':>11} {'unit':12} {'ratio':>8} {'median':>8}")
    found: list[Row] = []
    code = None
    try:
        for row in rows(quick=quick):
            found.append(row)
            if as_json and sys.stderr.isatty():
                # A bar that moves would be measured too.
                tell(f"vmemmap: {len(found)} of {len(NAMES)} rows: {row.name}")
            if not as_json:
                figures = f"{row.value:11.4g} {row.limit:11.4g} {row.unit:12} {row.ratio:8.3f} {row.ratio_median:8.3f}"
                click.echo(f"{row.name:22} {figures}  {row.what}")
    except KeyboardInterrupt:
        code = INTERRUPTED
    if as_json:
        print_json([row.to_dict() for row in found])
    return code
