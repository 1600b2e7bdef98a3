"""``--html FILE``: the answer as a page, beside what the command prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import cast

import click
from click.core import ParameterSource

from ..errors import VmemmapError

__all__ = ["as_typed", "html_option", "save", "vmemmap_text"]

html_option = click.option(
    "--html",
    "html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Save the answer as a page that opens in a browser without a network.",
)


#: Options that say where the answer goes, and not what it is.
_WHERE = frozenset({"html", "as_json", "trace_out"})


def as_typed() -> list[str]:
    """The words that give the answer of the running command again: all that was typed but where the answer goes."""
    context = click.get_current_context()
    words = ["vmemmap", *context.command_path.split()[1:]]
    for parameter in context.command.params:
        name = parameter.name or ""
        value: object = context.params.get(name)
        if name in _WHERE or context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        values = [str(one) for one in cast("tuple[object, ...]", value if isinstance(value, tuple) else (value,))]
        if isinstance(parameter, click.Argument):
            words += values
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(parameter.opts[0])
        else:
            words += [word for one in values for word in (parameter.opts[0], one)]
    return words


def save(path: Path | None, page: Callable[[], str]) -> None:
    """Write what `page` makes, whole or not at all, if a path is given."""
    from .. import saving

    if path is None:
        return
    saving.check(path, "the page")
    text = page()
    with saving.whole_text(path) as file:
        file.write(text)


def vmemmap_text(file: str, ram: Iterable[str], hints: Mapping[str, str | None]) -> str:
    """The vmemmap of a dump as ``kernel_page_tables`` prints it; empty if it shows none or is too damaged to load."""
    from .ptdump import of_file

    known = {name: value for name, value in hints.items() if value is not None}
    try:
        return of_file(file, known, tuple(ram), "vmemmap", quiet=True)[0]
    except VmemmapError:
        return ""
