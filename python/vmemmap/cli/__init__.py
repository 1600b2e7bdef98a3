"""The command line: one module of this package for each command, found by its name and imported when called.

A command module has one ``click.Command`` named ``command``. What the command returns is the exit code; ``None`` is 0.
"""

from __future__ import annotations

import json
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Final, ParamSpec, TypeVar

import click

from ..errors import InternalError, VmemmapError

__all__ = [
    "HOLDS",
    "INCONCLUSIVE",
    "INTERRUPTED",
    "MISUSE",
    "VIOLATED",
    "hint_options",
    "json_option",
    "machine_options",
    "main",
    "print_json",
    "print_notes",
]

HOLDS: Final = 0
"""It holds, or it is done."""
VIOLATED: Final = 1
"""A violation or a difference was found."""
MISUSE: Final = 2
"""The call or the input is wrong."""
INCONCLUSIVE: Final = 3
"""The budget ran out before the question was decided."""
INTERRUPTED: Final = 130
"""Interrupted; what was found so far has been printed and saved."""

P = ParamSpec("P")
T = TypeVar("T")

json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")

_MACHINE: Final = (
    click.option("--kernel", help="Kernel behaviour, instead of the one that the dump names."),
    click.option("--granule", help="4K, 16K or 64K, where the dump does not say."),
    click.option("--va-bits", help="36, 39, 42, 47, 48 or 52, where the dump does not say."),
    click.option(
        "--memstart", metavar="ADDRESS", help="memstart_addr: where the linear map begins, where the dump does not say."
    ),
)
_HINTS: Final = (
    *_MACHINE,
    click.option("--root", metavar="ADDRESS", help="Physical address of swapper_pg_dir, where a vmcore does not say."),
    click.option("--base", metavar="ADDRESS", help="Physical address of the first byte of a raw memory file."),
    click.option(
        "--ram",
        metavar="FILE@ADDRESS",
        multiple=True,
        help="A further raw memory file and where it begins; may be repeated.",
    ),
)


def hint_options(function: Callable[P, T]) -> Callable[P, T]:
    """Options for what a dump does not say about its machine."""
    for option in reversed(_HINTS):
        function = option(function)
    return function


def machine_options(function: Callable[P, T]) -> Callable[P, T]:
    """Those of them that say what the machine is, for what is no dump of its memory."""
    for option in reversed(_MACHINE):
        function = option(function)
    return function


def print_notes(notes: Iterable[str]) -> None:
    """What was taken instead of what a dump does not say: on standard error,
    beside an answer that has no place for it.
    """
    for note in notes:
        click.echo(f"vmemmap: note: {note}", err=True)


def print_json(answer: object) -> None:
    """Print one JSON value; ``answer`` may hold NumPy scalars."""
    click.echo(json.dumps(answer, indent=2, default=_plain))


def _plain(value: object) -> object:
    item = getattr(value, "item", None)
    if item is not None:
        return item()
    raise TypeError(f"{type(value).__name__} is not JSON")


class Commands(click.Group):
    """Commands by module name; nothing is imported for those not called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the modules beside this file."""
        return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The ``command`` of the module of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        return import_module(f"{__name__}.{cmd_name.replace('-', '_')}").command


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from .. import __version__

        click.echo(f"vmemmap {__version__}")
        ctx.exit()


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
def vmemmap() -> None:
    """A laboratory for the page tables behind the struct page array on arm64.

    Exit codes: 0 it holds or is done, 1 a violation or difference was found, 2 the call or the input is wrong,
    3 the budget ran out before the question was decided, 130 interrupted.
    """


def _complain(text: str) -> None:
    """One line on standard error, whatever the message holds."""
    line = " ".join(text.split())
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    click.echo(f"vmemmap: {printable}", err=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code. Never raises for what a caller or an input can cause."""
    try:
        code = vmemmap.main(args=arguments, prog_name="vmemmap", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else HOLDS
    except (KeyboardInterrupt, click.Abort):
        _complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone; keep the interpreter from complaining about it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return MISUSE
    except click.exceptions.NoArgsIsHelpError as error:
        assert error.ctx is not None
        group, name = error.ctx.command, error.ctx.command_path
        commands = group.list_commands(error.ctx) if isinstance(group, click.Group) else []
        _complain(f"no command given: {', '.join(commands)}; {name} --help tells more")
    except click.ClickException as error:
        _complain(error.format_message())
    except VmemmapError as error:
        if isinstance(error, InternalError) and os.environ.get("VMEMMAP_TRACEBACK"):
            raise
        _complain(str(error))
    except OSError as error:
        _complain(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except MemoryError:
        _complain("not enough memory for this request")
    except RecursionError:
        _complain("the input is nested too deeply")
    except Exception as error:
        if os.environ.get("VMEMMAP_TRACEBACK"):
            raise
        _complain(f"internal error, please report: {type(error).__name__}: {error} (VMEMMAP_TRACEBACK=1 shows where)")
    return MISUSE
