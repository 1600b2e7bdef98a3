"""The pages of ``explore``, ``check`` and ``diff``: the same kind of page as that of ``vmemmap run``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from ..dumps.checking import Check
from ..dumps.difference import Difference
from ..lab.exploration import Result
from ..spec import GRANULES
from . import environment
from .mapped import mapped_text
from .player import player

__all__ = ["check_page", "diff_page", "explore_page"]


def _granule(result: Result) -> str:
    return result.scope.get("granule", "4K")


def explore_page(result: Result, command: Sequence[str]) -> str:
    """What an exploration found: the verdict, then each counterexample to step through."""
    found: list[dict[str, object]] = []
    judged_first = sorted(result.violated, key=lambda name: (name not in result.judged, result.violated.index(name)))
    for name in judged_first:
        counterexample = result.trace_of(name)
        if counterexample is None:
            continue
        violation, steps, shortest = counterexample
        drawn = player(steps, violation, f"{result.scenario} {result.variant}: {name}", _granule(result))
        if drawn is not None:
            found.append(
                {"violation": violation, "player": drawn, "shortest": shortest, "judged": name in result.judged}
            )
    gathered: dict[str, list[str]] = {}
    for name, state in result.invariants.items():
        steps_of = result.invariant_steps.get(name)
        gathered.setdefault(state, []).append(f"{name} ({steps_of:,} steps)" if steps_of else name)
    facts = [
        ("executions", f"{result.executions:,}"),
        ("steps", f"{result.steps:,}"),
        *([("states", f"{result.states:,}")] if result.states is not None else []),
        ("seconds", f"{result.seconds:.2f}"),
        ("search", result.extent),
        ("kernel", result.kernel),
        ("policies", ", ".join(f"{row}={value}" for row, value in sorted(result.policies.items()))),
    ]
    return (
        environment()
        .get_template("explore.html")
        .render(
            title=f"{result.scenario} {result.variant}",
            result=result,
            counterexamples=found,
            states=[(state, ", ".join(names)) for state, names in gathered.items()],
            facts=facts,
            command=shlex.join(command),
        )
    )


def check_page(answer: Check, text: str, command: Sequence[str]) -> str:
    """What a check found: the verdict, then one card for each violated invariant; `text` is that of its vmemmap."""
    granule = GRANULES.get(answer.machine.split()[0], GRANULES["4K"])
    kinds = [
        (name, count, [one for one in answer.violations if one.invariant == name])
        for name, count in answer.found.items()
    ]
    states: dict[str, list[str]] = {}
    for name, state in answer.invariants.items():
        states.setdefault(state, []).append(name)
    counts = [(name.replace("_", " "), f"{n:,}") for name, n in answer.counts.items() if n is not None]
    return (
        environment()
        .get_template("check.html")
        .render(
            answer=answer,
            conclusion=answer.text().splitlines()[-1],
            kinds=[kind for kind in kinds if kind[2]],
            map=mapped_text(text, granule),
            states=[(state, " ".join(names)) for state, names in states.items()],
            counts=counts,
            command=shlex.join(command),
        )
    )


def diff_page(answer: Difference, texts: Sequence[str], command: Sequence[str]) -> str:
    """What changed, in words, and the vmemmap before and after; `texts` are those of their vmemmaps."""
    names = [Path(os.fspath(source)).name for source in answer.sources]
    maps = [
        (f"{when}: {name}", found)
        for when, name, text in zip(("Before", "After"), names, texts, strict=True)
        if (found := mapped_text(text, answer.granule)) is not None
    ]
    counts = [
        ("descriptors of vmemmap changed", f"{answer.changed:,}"),
        ("tables that came", f"{answer.tables_added:,}"),
        ("tables that went", f"{answer.tables_removed:,}"),
        ("frames given up", "not shown" if answer.frames_lost is None else f"{answer.frames_lost:,}"),
        ("frames gained", "not shown" if answer.frames_gained is None else f"{answer.frames_gained:,}"),
        ("hugepages optimised", f"{len(answer.hugepages_optimised):,}"),
        ("hugepages restored", f"{len(answer.hugepages_restored):,}"),
        ("blocks split", f"{len(answer.blocks_split):,}"),
    ]
    return (
        environment()
        .get_template("diff.html")
        .render(
            names=names,
            lines=[line for line in answer.summary.splitlines() if line not in answer.word_by_word],
            raw=answer.word_by_word,
            notes=answer.notes,
            maps=maps,
            counts=counts,
            command=shlex.join(command),
        )
    )
