"""``vmemmap replay``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..errors import SpecError
from . import HOLDS, VIOLATED, json_option, print_json


@click.command("replay")
@click.argument("trace", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "how",
    type=click.Choice(["text", "html", "perfetto"]),
    default="text",
    show_default=True,
    help="Lanes of text, a page for a browser, or Chrome trace events for the Perfetto UI.",
)
@click.option("--tolerant", is_flag=True, help="Past the first difference, resynchronise and go on.")
@click.option("--seed", type=click.IntRange(0, (1 << 64) - 1), help="Tolerant: draw who goes after the last segment.")
@click.option(
    "--set", "settings", multiple=True, metavar="POLICY=VALUE", help="Run the trace under another policy than its own."
)
@click.option("--out", type=click.Path(path_type=Path), help="Write to this file rather than to standard output (-).")
@json_option
def command(
    trace: Path, how: str, tolerant: bool, seed: int | None, settings: tuple[str, ...], out: Path | None, as_json: bool
) -> int:
    """Run the execution of TRACE again, a file of explore --trace-out, and show it step by step.

    Exit codes: 1 the invariant of the trace is violated again, 2 not a trace, or one that runs otherwise (diverged),
    0 a tolerant replay in which it is not.

    \b
    Examples:
      vmemmap replay hole.json
      vmemmap replay hole.json --format html --out hole.html
      vmemmap replay hole.json --set update=bbm --tolerant
    """
    from .. import saving
    from ..lab.asked import chosen
    from ..lab.replay import replay

    if out is not None and str(out) == "-":
        out = None
    if out is not None:
        saving.check(out, "the replay")
    result = replay(trace, tolerant=tolerant, seed=seed, policies=chosen(settings))
    if not tolerant and not result.identical:
        if as_json:
            print_json(result.to_dict())
        differs = "; ".join([result.words, *result.notes])
        raise SpecError(f"{trace}: {differs}")
    if as_json:
        text = json.dumps(result.to_dict(), indent=2)
    elif how == "html":
        from ..report.replay import page

        text = page(result)
    elif how == "perfetto":
        from ..report import perfetto

        title = f"{result.scenario} {result.variant}: {result.invariant}"
        text = json.dumps(perfetto.document(result.trace, result.violation, title))
    else:
        from ..report.replay import text as as_text

        text = as_text(result)
    if out is None:
        click.echo(text)
    else:
        with saving.whole_text(out) as file:
            file.write(text + "\n")
    return VIOLATED if result.violated else HOLDS
