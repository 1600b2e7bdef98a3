"""The command line: one module of this package for each command, found by its name and imported when called.

A command module has one ``click.Command`` named ``command``. What the command returns is the exit code; ``None`` is 0.
"""

from __future__ import annotations

import errno
import io
import json
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Final, ParamSpec, TextIO, TypeVar

import click

from ..dumps.reading import keeping_pipes
from ..errors import InternalError, VmemmapError
from ..spec import did_you_mean

__all__ = [
    "HOLDS",
    "INCONCLUSIVE",
    "INTERRUPTED",
    "MISUSE",
    "PIPE_CLOSED",
    "VIOLATED",
    "hint_options",
    "json_option",
    "machine_options",
    "main",
    "print_json",
    "print_notes",
    "tell",
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
PIPE_CLOSED: Final = 141
"""Whoever read the answer has gone: what a shell says of a tool that SIGPIPE ended."""

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
        tell(f"vmemmap: note: {note}")


def tell(line: str) -> None:
    """A line on standard error. That nobody can read it there changes no answer."""
    try:
        click.echo(line, err=True)
    except OSError:
        _let_go(sys.stderr)


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
        found = (module.name for module in pkgutil.iter_modules(__path__))
        return sorted(name.replace("_", "-") for name in found if not name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The ``command`` of the module of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        return import_module(f"{__name__}.{cmd_name.replace('-', '_')}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, but for a name that is nearly one: then the error says which.

        Raises:
            click.UsageError: There is no such command.
        """
        known = self.list_commands(ctx)
        if args and not ctx.resilient_parsing and args[0] not in known and not args[0].startswith("-"):
            expected = did_you_mean(args[0], known, f"there are {', '.join(known)}")
            raise click.UsageError(f"no command {args[0][:60]!r}{expected}", ctx)
        return super().resolve_command(ctx, args)


#: Extra → a module of it, by which one sees whether it is there.
_EXTRAS: Final = {"plot": "matplotlib", "arrow": "pyarrow", "dask": "distributed", "vmcore": "cramjam"}


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec
    from platform import machine, python_version

    from .. import _core
    from ..spec import KERNELS

    try:
        installed = version("vmemmap")
    except PackageNotFoundError:
        # Run from a checkout that was never installed.
        installed = _core.VERSION
    has = ", ".join(f"{extra} {'yes' if find_spec(module) else 'no'}" for extra, module in _EXTRAS.items())
    click.echo(f"vmemmap {installed}")
    click.echo(f"core {_core.VERSION}, {_core.BUILD_PROFILE} build; Python {python_version()}, {machine()}")
    click.echo(f"kernels {', '.join(KERNELS)}; {len(_core.policies())} policies; extras: {has}")
    ctx.exit()


def _print_manual(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from ._reference import manual

    click.echo(manual(vmemmap), nl=False)
    ctx.exit()


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print version, core and extras.",
)
@click.option(
    "--man",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_manual,
    help="Print the manual page of all commands: vmemmap --man | man -l -",
)
def vmemmap() -> None:
    """A laboratory for the page tables behind the struct page array on arm64.

    Exit codes: 0 it holds or is done, 1 a violation or difference was found, 2 the call or the input is wrong,
    3 the budget ran out before the question was decided, 130 interrupted, 141 the reader of the answer has gone.

    \b
    Examples:
      vmemmap run
      vmemmap explore R6 --variant mmap-only
      vmemmap check capture.npz

    Completion: eval "$(_VMEMMAP_COMPLETE=bash_source vmemmap)"; zsh_source and fish_source likewise.
    """


def _complain(text: str) -> None:
    """One line on standard error, whatever the message holds."""
    line = " ".join(text.split())
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    tell(f"vmemmap: {printable}")


def _example(error: click.UsageError) -> str:
    """What would be right, where an argument is missing or one too many: what the help shows first."""
    command = error.ctx.command if error.ctx is not None else None
    lines = ((command.help or "") if command is not None else "").splitlines()
    shown = next((line.strip() for line in lines if line.strip().startswith("vmemmap ")), None)
    wrong_number = isinstance(error, click.MissingParameter) or "unexpected extra argument" in error.format_message()
    return f" Such as: {shown}" if shown is not None and wrong_number else ""


def _let_go(stream: TextIO) -> None:
    """Nothing more can be written there; keep the interpreter from trying what is left once more at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _stand_in_for_closed_streams() -> None:
    """A standard stream that is closed leaves its number to the next file that is opened. Until then it stands for
    nothing: of standard output every write fails, as it would have.
    """
    for number, name, flags in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


def _print_names_as_typed(stream: TextIO) -> None:
    """A file's name comes out as it was typed, whatever its bytes."""
    if stream.errors == "strict" and isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="surrogateescape")


_NO_MORE_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code. Never raises for what a caller or an input can cause."""
    _stand_in_for_closed_streams()
    stdout, stderr = sys.stdout, sys.stderr
    _print_names_as_typed(stdout)
    try:
        with keeping_pipes():
            code = vmemmap.main(args=arguments, prog_name="vmemmap", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else HOLDS
    except (KeyboardInterrupt, click.Abort):
        _complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _let_go(stdout)
        return PIPE_CLOSED
    except SystemExit as error:
        # What click makes of a pipe that was closed, seen by the stream that it put in place, and what rich does.
        if sys.stdout is stdout and not isinstance(error.__context__, BrokenPipeError):
            raise
        sys.stdout, sys.stderr = stdout, stderr
        _let_go(stdout)
        return PIPE_CLOSED
    except click.exceptions.NoArgsIsHelpError as error:
        assert error.ctx is not None
        group, name = error.ctx.command, error.ctx.command_path
        commands = group.list_commands(error.ctx) if isinstance(group, click.Group) else []
        _complain(f"no command given: {', '.join(commands)}; {name} --help tells more")
    except click.UsageError as error:
        _complain(error.format_message() + _example(error))
    except click.ClickException as error:
        _complain(error.format_message())
    except VmemmapError as error:
        if isinstance(error, InternalError) and os.environ.get("VMEMMAP_TRACEBACK"):
            raise
        _complain(str(error))
    except OSError as error:
        if error.filename is None and error.errno in _NO_MORE_ROOM:
            # Of files that are written it is told by name.
            _let_go(stdout)
            _complain(f"standard output: cannot be written: {error.strerror}")
        else:
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
