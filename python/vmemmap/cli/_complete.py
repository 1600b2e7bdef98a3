"""What the shell offers for what is being typed: scenarios, their variants, policies and their choices.

The completion itself is click's: ``_VMEMMAP_COMPLETE=bash_source vmemmap`` prints what a shell has to read.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

__all__ = ["machines", "policies", "policy_names", "rows", "scenarios", "variants"]


def scenarios(_ctx: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Corpus numbers and names, with the title of each."""
    from ..lab.scenario import registry

    named = [(name, one.title) for one in registry() for name in (one.corpus, one.name) if name]
    return [CompletionItem(name, help=title) for name, title in named if name.lower().startswith(typed.lower())]


def _scenario(ctx: click.Context) -> object:
    """What stands on the line already: before the value of an option is there click has parsed nothing, and it is in
    `args`.
    """
    return ctx.params.get("scenario") or next((word for word in ctx.args if not word.startswith("-")), None)


def variants(ctx: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Those of the scenario that stands on the line already."""
    from ..errors import VmemmapError
    from ..lab.scenario import find

    name = _scenario(ctx)
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


def policy_names(_ctx: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Names of policies."""
    from .. import _core

    return [CompletionItem(name) for name in _core.policies() if name.startswith(typed)]


def rows(ctx: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Names of the rows that the comparison on the line has."""
    from ..comparison.comparison import names_of_rows
    from ..errors import VmemmapError

    name = _scenario(ctx)
    if not isinstance(name, str):
        return []
    try:
        named = names_of_rows(name, ctx.params.get("policy"), ctx.params.get("variant"))
    except VmemmapError:
        return []
    return [CompletionItem(row, help=title) for row, title in named.items() if row.startswith(typed)]


def machines(_ctx: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Machines that the package has, or a file."""
    from ..comparison.machine_file import shipped

    known = [CompletionItem(name) for name in shipped() if name.startswith(typed)]
    return known or [CompletionItem(typed, type="file")]
