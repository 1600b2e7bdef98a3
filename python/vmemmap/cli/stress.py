"""``vmemmap stress``."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import HOLDS, INTERRUPTED, VIOLATED, _complete, json_option, print_json

if TYPE_CHECKING:
    from ..lab.stressing import StressResult


@click.command("stress")
@click.argument("scenario", shell_complete=_complete.scenarios)
@click.option("--variant", shell_complete=_complete.variants, help="Which variant; the first listed by default.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="POLICY=VALUE",
    shell_complete=_complete.policies,
    help="Override a policy of the variant.",
)
@click.option("--threads", type=click.IntRange(1, 256), help="Threads; one for each actor by default.")
@click.option("--seconds", default=2.0, show_default=True, help="How long.")
@click.option("--seed", type=click.IntRange(0, (1 << 64) - 1), help="For what is drawn at random.")
@click.option("--unchecked", is_flag=True, help="Without the sanitizer: full speed, and nothing is noticed.")
@click.option(
    "--snapshots",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Each second a line of counters to this new file.",
)
@json_option
def command(
    scenario: str,
    variant: str | None,
    settings: tuple[str, ...],
    threads: int | None,
    seconds: float,
    seed: int | None,
    unchecked: bool,
    snapshots: Path | None,
    as_json: bool,
) -> int:
    """Run the actors of SCENARIO in real threads on the native machine.

    SCENARIO is a name, a corpus number (R6) or FILE.py[:NAME]. Each actor repeats its program and, before the next
    round, puts back what it took away. I4, I5, I19, I22 and I23 are not visible here: a native machine has no TLB.
    Of a variant that is listed as safe only what the scenario judges decides; all else is shown.

    Exit codes: 0 no violation that decides was seen, 1 violations, 2 wrong call, 130 interrupted. A stress that sees
    nothing proves nothing: explore does.

    \b
    Examples:
      vmemmap stress R6
      vmemmap stress R33 --variant 4k-split-bbm-6.1 --threads 8 --seconds 10
      vmemmap stress R6 --seconds 3600 --snapshots soak.jsonl
    """
    from ..lab.asked import chosen
    from ..lab.snapshots import snapshots as saving
    from ..lab.stressing import stress
    from ._progress import bar

    policies = chosen(settings)
    with ExitStack() as stack:
        stack.enter_context(_terminable())
        saved = stack.enter_context(saving(snapshots)) if snapshots is not None else None
        tick = stack.enter_context(bar(f"stressing {scenario}", seconds, "operations"))

        def look(operations: int, violations: int, so_far: float, counters: Mapping[str, int]) -> None:
            if saved is not None:
                saved(operations, violations, so_far, counters)
            if tick is not None:
                tick(so_far, operations, f"{violations:,} violations" if violations else "")

        progress: Callable[[int, int, float, dict[str, int]], object] | None = look if saved or tick else None
        result = stress(
            scenario,
            variant=variant,
            policies=policies,
            threads=threads,
            seconds=seconds,
            seed=seed,
            checked=not unchecked,
            progress=progress,
        )
    if as_json:
        print_json(result.to_dict())
    else:
        rate = result.operations / result.seconds if result.seconds else 0.0
        how = "checked" if result.checked else "unchecked, violations are not noticed"
        click.echo(
            f"{result.scenario} {result.variant}: "
            f"{result.violation_count:,} violations in {result.operations:,} operations, "
            f"{result.seconds:.2f} s, {result.threads} threads, {rate:,.0f} operations/s ({how})"
        )
        for invariant, count in result.counts.items():
            first = next((v for v in result.violations if v.invariant == invariant), None)
            example = f", the first by {first.actor}: {first.message}" if first else ""
            click.echo(f"  {invariant}: {count:,} violations{_standing(result, invariant)}{example}")
        if result.violated and result.put_back:
            added = "; ".join(f"{actor} by {', '.join(names)}" for actor, names in result.put_back.items())
            click.echo(f"  between rounds is put back what they took, which one round of explore has not: {added}")
        for name, latency in result.latency_ns.items():
            click.echo(
                f"  {name}: p50 {latency['p50']:,.0f} ns, p99 {latency['p99']:,.0f} ns, "
                f"p99.9 {latency['p999']:,.0f} ns, max {latency['max']:,.0f} ns"
            )
        click.echo("  " + ", ".join(f"{name} {count:,}" for name, count in result.counters.items() if count))
    if result.interrupted:
        return INTERRUPTED
    return VIOLATED if result.refuted else HOLDS


def _standing(result: StressResult, invariant: str) -> str:
    """What a violation of it says of the scenario."""
    if invariant in result.raw["not_visible"]:
        return " (not visible here: threads are not paused)"
    if invariant not in result.raw["judged"]:
        return " (not judged by this scenario)"
    return " (expected of repeated rounds)" if invariant in result.repeated else ""


@contextmanager
def _terminable() -> Generator[None, None, None]:
    """SIGTERM, and Ctrl-C that a parent in the background had ignored, end a soak of hours like any Ctrl-C: what it
    found so far is its answer."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = {number: signal.signal(number, interrupted) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:
        # Not in the main thread, where nobody sends signals.
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
