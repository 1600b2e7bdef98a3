"""``vmemmap explore``."""

from __future__ import annotations

from pathlib import Path

import click

from . import HOLDS, INCONCLUSIVE, INTERRUPTED, VIOLATED, _complete, json_option, print_json, print_notes
from ._html import as_typed, html_option, save


@click.command("explore")
@click.argument("scenario", shell_complete=_complete.scenarios)
@click.option("--variant", shell_complete=_complete.variants, help="Which variant; the first listed by default.")
@click.option("--kernel", help="Kernel behaviour, instead of that of the variant.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="POLICY=VALUE",
    shell_complete=_complete.policies,
    help="Override a policy of the variant.",
)
@click.option(
    "--memory",
    type=click.Choice(["sc", "views"]),
    help="sc: sequentially consistent; views: plain stores wait in store buffers. That of the variant by default.",
)
@click.option("--strategy", default="exhaustive", show_default=True, help="exhaustive, random or pct.")
@click.option("--depth", type=int, help="Of pct, which preempts one time less in an execution; 3 by default.")
@click.option("--seed", type=click.IntRange(0, (1 << 64) - 1), help="For random and pct.")
@click.option("--budget", default="60s", show_default=True, help="Executions (5000) or time (10s).")
@click.option("--workers", type=int, default=1, show_default=True, help="Threads of a long exhaustive search.")
@click.option("--trace-out", type=click.Path(dir_okay=False, path_type=Path), help="Save the trace of a violation.")
@html_option
@json_option
def command(
    scenario: str,
    variant: str | None,
    kernel: str | None,
    settings: tuple[str, ...],
    memory: str | None,
    strategy: str,
    depth: int | None,
    seed: int | None,
    budget: str,
    workers: int,
    trace_out: Path | None,
    html: Path | None,
    as_json: bool,
) -> int:
    """Explore the interleavings of SCENARIO, a name, a corpus number (R6) or FILE.py[:NAME].

    Exit codes: 0 safe, 1 violated, 2 wrong call, 3 inconclusive, 130 interrupted.

    \b
    Examples:
      vmemmap explore R6
      vmemmap explore R33 --variant 4k-split-bbm-6.1 --trace-out hole.json
      vmemmap explore R32 --set update=bbm --budget 10s --html found.html
      vmemmap explore R12 --memory views
      vmemmap explore R45 --workers 2
      vmemmap explore R1 --strategy pct --depth 5 --seed 7 --budget 5000
    """
    from .. import saving
    from ..lab import trace
    from ..lab.asked import chosen
    from ..lab.exploration import explore
    from ..spec import parse_budget
    from ._progress import searching

    if trace_out is not None:
        saving.check(trace_out, "the trace")
    if html is not None:
        saving.check(html, "the page")
    with searching(f"exploring {scenario}", parse_budget(budget)) as progress:
        result = explore(
            scenario,
            variant=variant,
            kernel=kernel,
            policies=chosen(settings),
            memory=memory,
            strategy=strategy,
            depth=depth,
            seed=seed,
            budget=budget,
            workers=workers,
            progress=progress,
        )
    if as_json:
        print_json(result.to_dict())
    else:
        click.echo(result.summary)
        if result.violation is not None:
            click.echo(f"{result.violation.invariant}: {result.violation.message}")
            click.echo(trace.text(result.trace))
    # What was found is told before a file that cannot be written is.
    saved = result.trace_file()
    if trace_out is not None and saved is not None:
        with saving.whole_text(trace_out) as file:
            trace.write(saved, file)
    elif trace_out is not None:
        print_notes([f"{trace_out} is not written: no judged invariant was violated"])
    if html is not None:
        from ..report.pages import explore_page

        words = as_typed()
        save(html, lambda: explore_page(result, words))
    if result.interrupted:
        return INTERRUPTED
    return {"safe": HOLDS, "violated": VIOLATED, "inconclusive": INCONCLUSIVE}[result.verdict]
