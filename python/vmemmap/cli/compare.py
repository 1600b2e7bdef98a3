"""``vmemmap compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..errors import SpecError
from . import HOLDS, json_option, print_json

if TYPE_CHECKING:
    from ..compare.comparing import Row

#: Of all searches together, so that the whole page stays below a minute.
SEARCH_SECONDS = 50.0


@click.command("compare")
@click.argument("scenario")
@click.option("--policy", help="Whose choices; without one, R3 compares the approaches A to D and what is beside them.")
@click.option("--variant", help="Which variant of the scenario; the first listed by default.")
@click.option("--only", multiple=True, metavar="NAME", help="Only the rows of this name; may be repeated.")
@click.option("--cpus", multiple=True, type=int, help="CPUs of the modelled machine; may be repeated.")
@click.option("--machine", "source", default="arm64", show_default=True, help="Machine file (TOML), or its name.")
@click.option("--seed", type=click.IntRange(0, (1 << 64) - 1), default=0, show_default=True, help="Of modelled CPUs.")
@json_option
def command(
    scenario: str,
    policy: str | None,
    variant: str | None,
    only: tuple[str, ...],
    cpus: tuple[int, ...],
    source: str,
    seed: int,
    as_json: bool,
) -> int:
    """Put all choices of a policy side by side, on the actors of SCENARIO: verdict, operations counted, modelled cost.

    Counts are for one hugepage that is allocated and freed again. Times are modelled: kernel code run on a machine
    whose latencies come from a file.

    Exit codes: 0 compared, 2 wrong call, 130 interrupted.
    """
    from ..compare import comparing, machine_file
    from ..lab.lab import resolve

    comparing.check_cpus(cpus)
    machine = machine_file.load(source)
    name = resolve(scenario).name
    if policy is not None:
        choices = comparing.choices_of(scenario, policy, variant)
    elif resolve(comparing.SCENARIO_OF_APPROACHES).name == name and variant is None:
        choices = comparing.the_approaches()
    else:
        raise SpecError(
            f"compare {scenario}: --policy is missing; only {comparing.SCENARIO_OF_APPROACHES} without a variant "
            "compares the approaches A to D"
        )
    known = [choice.name for choice in choices]
    for wanted in only:
        if wanted not in known:
            raise SpecError(f"--only {wanted}: there is no such row; rows are {', '.join(known)}")
    choices = [choice for choice in choices if not only or choice.name in only]
    rows = comparing.compare(choices, machine, cpus, seed=seed, seconds=SEARCH_SECONDS)
    if as_json:
        print_json({"scenario": name, "machine": machine.name, "rows": [row.to_dict() for row in rows]})
    else:
        _print(name, rows)
    return HOLDS


def _print(name: str, rows: list[Row]) -> None:
    from ..compare import comparing

    size = comparing.size_name(rows[0].choice.granule)
    machine = rows[0].machine
    click.echo(f"{name}: verdicts of exhaustive searches; times modelled on {machine.name} ({machine.about})")
    click.echo(f"for one {size} page, allocated and freed: TLBI, DSB, IPI, grace periods, splits, longest hole")
    for row in rows:
        _print_row(row)
    for words in comparing.scope(rows):
        click.echo(f"scope: {words}")


def _print_row(row: Row) -> None:
    counts = row.counts()
    assert counts is not None
    exhaustive = "" if row.result.exhaustive else ", not exhaustive"
    switches = f" ({len(row.result.trace)} steps, {row.switches} switches)" if row.switches is not None else ""
    held = "safe" if row.verdict == "safe" else row.result.words
    click.echo(f"{row.choice.name:21} {row.choice.kernel:5} {held}{switches}{exhaustive}")
    hole = f"{counts.hole_ns / 1000:.2f} us" if counts.hole_ns else "none"
    click.echo(
        f"{'':8} {row.choice.title}{f' ({row.choice.remark})' if row.choice.remark else ''}\n"
        f"{'':8} TLBI {counts.tlbi:.1f}, DSB {counts.dsb:.1f}, IPI {counts.ipi:.1f}, "
        f"grace periods {counts.grace_periods:.2f}, splits {counts.splits:.3f}, hole {hole}, "
        f"frames saved {row.frames_saved}"
    )
    for work in row.works:
        times = ", ".join(
            f"{name} {phase.quantile(0.5) / 1000:.1f}/{phase.quantile(0.99) / 1000:.1f}"
            for name, phase in work.phases.items()
            if name in ("allocate", "free", "demote")
        )
        click.echo(f"{'':8} modelled us p50/p99 a page, {work.cpus} CPUs: {times}")
