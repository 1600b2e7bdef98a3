"""``--html FILE``: the answer as a page, beside what the command prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import click

from ..errors import VmemmapError

__all__ = ["html_option", "save", "vmemmap_text"]

html_option = click.option(
    "--html",
    "html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Save the answer as a page that opens in a browser without a network.",
)


def save(path: Path | None, page: Callable[[], str]) -> None:
    """Write what `page` makes, whole or not at all, if a path is given."""
    from ..lab import saving

    if path is None:
        return
    saving.check(path, "the page")
    text = page()
    with saving.whole(path) as file:
        file.write(text)


def vmemmap_text(file: str, ram: Iterable[str], hints: Mapping[str, str | None]) -> str:
    """The vmemmap of a dump as ``kernel_page_tables`` prints it; empty if it shows none or is too damaged to load."""
    from .ptdump import of_file

    known = {name: value for name, value in hints.items() if value is not None}
    try:
        return of_file(file, known, tuple(ram), "vmemmap", quiet=True)[0]
    except VmemmapError:
        return ""
