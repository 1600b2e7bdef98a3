"""``vmemmap ptdump``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..errors import SpecError
from . import hint_options, json_option, print_json, print_notes

if TYPE_CHECKING:
    from ..machine.machine import Machine


@click.command("ptdump")
@click.argument("file", required=False)
@click.option("--machine", metavar="SPEC", help="A machine to build, like granule=4K,va_bits=48,boot_memory=4G,2M=64.")
@click.option("--region", help="Only that region: vmemmap, linear, vmalloc, modules, fixmap, pci.")
@hint_options
@json_option
def command(
    file: str | None, machine: str | None, region: str | None, as_json: bool, ram: tuple[str, ...], **hints: str | None
) -> None:
    """Print the kernel_page_tables text of a table image (FILE.npz), of a vmcore, of a dump's own text, or of a
    machine.

    A text comes back as the kernel printed it, whole or the slice that it is: a prompt and a command around it,
    quotation marks, indents, carriage returns and other blanks between columns are left out, and standard error says
    which.

    \b
    Examples:
      vmemmap ptdump capture.npz --region vmemmap
      vmemmap ptdump pasted-from-a-mail.txt > clean.txt
      vmemmap ptdump --machine granule=64K,va_bits=52,kernel=6.12,512M=4
    """
    if (file is None) == (machine is None):
        raise click.UsageError("give a FILE or --machine SPEC, and not both")
    given = {name: value for name, value in hints.items() if value is not None}
    from ._progress import waiting

    with waiting(f"reading {file}" if file is not None else "building the machine"):
        text, notes = (
            of_file(file, given, ram, region) if file is not None else (_of_machine(machine or "", given, region), ())
        )
    if as_json:
        source = file if file is not None else machine
        print_json({"source": source, "region": region, "lines": text.count("\n"), "text": text, "notes": list(notes)})
    else:
        print_notes(f"{file}: {note}" for note in notes)
        click.echo(text, nl=False)


def of_file(
    file: str, hints: dict[str, str], ram: tuple[str, ...], region: str | None, *, quiet: bool = False
) -> tuple[str, tuple[str, ...]]:
    """The text of a dump of any kind, and what stood around it; notes of an image are printed unless `quiet`."""
    from ..dumps.dump import Hints, kind_of_dump
    from ..dumps.ptdump import load_ptdump

    kind = kind_of_dump(file, Hints.parse(**hints))
    if kind != "ptdump":
        machine = _loaded(file, hints, ram)
        print_notes(() if quiet else machine.notes)
        if not quiet and kind != "npz" and region in (None, "fixmap"):
            print_notes(
                [
                    "where Fixmap starts depends on the configuration and no dump says it: "
                    "it is printed as in Debian's kernel"
                ]
            )
        return machine.ptdump(region), ()
    if hints and not quiet:
        raise SpecError(
            f"{file}: a text says what it says; --{next(iter(hints)).replace('_', '-')} is for images and vmcores"
        )
    from .. import _core

    # Not the file's own bytes: a text that this package cannot print is to be noticed.
    dump = load_ptdump(file)
    text = str(dump)
    part = text if region is None else _core.ptdump_region(text, region)
    if part is None:
        raise SpecError(f"{file}: has no region {region!r}")
    return part, dump.notes


def _loaded(file: str, hints: dict[str, str], ram: tuple[str, ...]) -> Machine:
    from ..machine.machine import Machine

    return Machine.load(
        file,
        kernel=hints.get("kernel"),
        root=hints.get("root"),
        granule=hints.get("granule"),
        va_bits=hints.get("va_bits"),
        memstart=hints.get("memstart"),
        base=hints.get("base"),
        ram=ram,
    )


def _of_machine(spec: str, hints: dict[str, str], region: str | None) -> str:
    from .. import _core
    from ..machine.machine import Machine
    from ..spec import parse_machine

    if hints:
        raise SpecError("--machine says all of its machine itself: kernel=6.12, granule=16K and so on")
    return Machine.from_spec(
        parse_machine(spec, {row: list(choices) for row, choices in _core.policies().items()})
    ).ptdump(region)
