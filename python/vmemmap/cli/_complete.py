"""What the shell offers for what is being typed: scenarios, their variants, policies and their choices.

The completion itself is click's: ``_VMEMMAP_COMPLETE=bash_source vmemmap`` prints what a shell has to read.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

__all__ = ["policies", "scenarios", "variants"]


def scenarios(_ctx: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Corpus numbers and names, with the title of each."""
    from ..lab.scenario import registry

    named = [(name, one.title) for one in registry() for name in (one.corpus, one.name) if name]
    return [CompletionItem(name, help=title) for name, title in named if name.lower().startswith(typed.lower())]


def variants(ctx: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Those of the scenario that stands on the line already."""
    from ..errors import VmemmapError
    from ..lab.scenario import find

    # Before the value of an option is there click has parsed nothing, and what stands on the line is in `args`.
    name = ctx.params.get("scenario") or next((word for word in ctx.args if not word.startswith("-")), None)
    if not isinstance(name, str):
        return []
    try:
        return [
            CompletionItem(variant.name, help=variant.expect)
            for variant in find(name).variants
            if variant.name.startswith(typed)
        ]
    except VmemmapError:
        return []


def policies(_ctx: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """``update=``, and behind the sign the choices of that policy."""
    from .. import _core

    known = _core.policies()
    row, equals, _ = typed.partition("=")
    words = [f"{row}={choice}" for choice in known.get(row, ())] if equals else [f"{name}=" for name in known]
    return [CompletionItem(word) for word in words if word.startswith(typed)]
