"""``vmemmap list``."""

from __future__ import annotations

import click

from . import json_option, print_json


@click.command("list")
@json_option
def command(as_json: bool) -> None:
    """List the scenarios: corpus number, variants, and what each variant is expected to show.

    \b
    Examples:
      vmemmap list
      vmemmap list --json
    """
    from ..lab.scenario import registry

    scenarios = registry()
    if as_json:
        print_json([scenario.to_dict() for scenario in scenarios])
        return
    for scenario in scenarios:
        click.echo(f"{scenario.corpus or '-':4} {scenario.name}: {scenario.title}")
        for source in scenario.sources:
            click.echo(f"       {source}")
        width = max(len(variant.name) for variant in scenario.variants)
        for variant in scenario.variants:
            violated = f" {' '.join(variant.invariants)}" if variant.invariants else ""
            differs = ", ".join(f"{row}={value}" for row, value in variant.policies.items()) or "as the kernel does"
            click.echo(f"     {variant.name:{width}}  {variant.expect}{violated}  (kernel {variant.kernel}; {differs})")
