"""The commands as a manual page and as a page of the documentation, both made of what ``--help`` prints."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import click

from .. import __version__

__all__ = ["Entry", "entries", "manual", "markdown"]

_VERBATIM: Final = "\b"
_NAME: Final = "vmemmap"


@dataclass(frozen=True)
class Entry:
    """One command: how it is called, its paragraphs (and whether each keeps its lines), and (option, text) pairs."""

    name: str
    usage: str
    paragraphs: tuple[tuple[str, bool], ...]
    options: tuple[tuple[str, str], ...]


def _paragraphs(text: str) -> Iterator[tuple[str, bool]]:
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text).partition("\f")[0]):
        if paragraph.startswith(_VERBATIM):
            yield paragraph[1:].strip("\n"), True
        elif paragraph.strip():
            yield " ".join(paragraph.split()), False


def _entry(name: str, command: click.Command, ctx: click.Context) -> Entry:
    usage = " ".join([name, *command.collect_usage_pieces(ctx)])
    options = [record for parameter in command.get_params(ctx) if (record := parameter.get_help_record(ctx))]
    return Entry(name, usage, tuple(_paragraphs(command.help or "")), tuple(options))


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return command.context_class(command, info_name=name.rpartition(" ")[2], parent=parent, **command.context_settings)


def entries(group: click.Group, name: str = _NAME, parent: click.Context | None = None) -> Iterator[Entry]:
    """The group and every command below it, in the order of ``--help``."""
    ctx = _context(group, name, parent)
    yield _entry(name, group, ctx)
    for below in group.list_commands(ctx):
        command = group.get_command(ctx, below)
        if command is None or command.hidden:
            continue
        full = f"{name} {below}"
        if isinstance(command, click.Group):
            yield from entries(command, full, ctx)
        else:
            yield _entry(full, command, _context(command, below, ctx))


def _roff(text: str) -> str:
    """Text that troff prints as it stands."""
    plain = text.replace("\\", "\\e").replace("-", "\\-")
    plain = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in plain)
    return "\n".join(f"\\&{line}" if line[:1] in (".", "'") else line for line in plain.splitlines())


def manual(group: click.Group) -> str:
    """All commands as one manual page, in man(7)."""
    listed = list(entries(group))
    lines = [
        f'.TH VMEMMAP 1 "" "vmemmap {__version__}" "User Commands"',
        ".SH NAME",
        "vmemmap \\- a laboratory for the page tables behind the struct page array on arm64",
    ]
    for at, entry in enumerate(listed):
        lines += [".SH DESCRIPTION" if not at else f".SH {_roff(entry.name)}", ".PP", f".B {_roff(entry.usage)}"]
        for text, verbatim in entry.paragraphs:
            lines += [".PP", ".nf", _roff(text), ".fi"] if verbatim else [".PP", _roff(text)]
        for option, words in entry.options:
            lines += [".TP", f".B {_roff(option)}", _roff(words)]
    return "\n".join(lines) + "\n"


def markdown(group: click.Group) -> str:
    """All commands as Markdown, a heading for each."""
    parts: list[str] = []
    for entry in entries(group):
        parts += [f"## {entry.name}", f"```text\n{entry.usage}\n```"]
        for text, verbatim in entry.paragraphs:
            if verbatim:
                head, _, body = text.partition("\n")
                parts += [f"**{head}**", f"```text\n{inspect.cleandoc(body)}\n```"]
            else:
                parts.append(_plain(text))
        if entry.options:
            rows = [f"| `{option.replace('|', chr(92) + '|')}` | {_plain(words)} |" for option, words in entry.options]
            parts.append("\n".join(["| option | |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """Text in which Markdown finds nothing of its own."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text)
