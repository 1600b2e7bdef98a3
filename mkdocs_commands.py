"""For `mkdocs`: the page of the commands is what ``--help`` prints, written when the site is built."""

from __future__ import annotations

from vmemmap.cli import vmemmap
from vmemmap.cli._reference import markdown

MARK = "<!-- commands -->"


def on_page_markdown(text: str, *, page: object, config: object, files: object) -> str:
    """The hook: the mark becomes every command."""
    return text.replace(MARK, markdown(vmemmap)) if MARK in text else text
