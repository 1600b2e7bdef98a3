"""``vmemmap estimate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import json_option, print_json

if TYPE_CHECKING:
    from ..sizing.removal import Removal


@click.command("estimate")
@click.option("--memory", help="RAM of the machine, like 1T; not needed for --remove alone.")
@click.option(
    "--hugepages",
    multiple=True,
    metavar="SIZE=MEMORY",
    help="Memory in hugepages of a size, like 2M=400G; may be repeated.",
)
@click.option("--granule", default="4K", show_default=True, help="4K, 16K or 64K.")
@click.option(
    "--reserved",
    type=click.Choice(["1", "2"]),
    default="1",
    show_default=True,
    help="vmemmap pages kept for each: 2 in 2021.",
)
@click.option(
    "--mapping",
    type=click.Choice(["blocks", "basepages"]),
    default="blocks",
    show_default=True,
    help="How vmemmap is mapped at boot.",
)
@click.option(
    "--kernel-reserve",
    default="0",
    show_default=True,
    help="What must be left at boot beside hugepages and struct pages.",
)
@click.option(
    "--remove",
    metavar="START-END",
    help="Would hot remove of these physical addresses split a leaf? Like 0x80000000-0x88000000.",
)
@click.option("--added", metavar="START-END", help="With --remove: the range that was hot-added in one piece.")
@click.option("--input", "file", metavar="FILE", help="With --remove: ask the tables of this image (.npz).")
@json_option
def command(
    memory: str | None,
    hugepages: tuple[str, ...],
    granule: str,
    reserved: str,
    mapping: str,
    kernel_reserve: str,
    remove: str | None,
    added: str | None,
    file: str | None,
    as_json: bool,
) -> None:
    """Print what HVO saves, and what tables and splits cost; or whether a removal would split a leaf.

    \b
    Examples:
      vmemmap estimate --memory 1T --hugepages 2M=400G --hugepages 1G=512G
      vmemmap estimate --memory 512G --granule 64K --hugepages 512M=256G --mapping basepages
      vmemmap estimate --remove 0x80000000-0x88000000 --added 0x80000000-0xc0000000
    """
    if memory is None and (remove is None or hugepages):
        raise click.UsageError("--memory is missing: the RAM of the machine, like 1T")
    if remove is None and (added is not None or file is not None):
        raise click.UsageError("--added and --input go with --remove START-END")
    if added is not None and file is not None:
        raise click.UsageError(
            "--added is for a removal without tables; --input has tables that say how memory is mapped"
        )
    answer: dict[str, object] = {}
    texts: list[str] = []
    if memory is not None:
        from ..sizing import estimate as estimates

        estimate = estimates.estimate(
            memory, hugepages, granule=granule, reserved=int(reserved), mapping=mapping, kernel_reserve=kernel_reserve
        )
        answer = estimate.to_dict()
        texts.append(estimate.text())
    if remove is not None:
        removal = _in_tables(file, remove) if file is not None else _by_arithmetic(remove, granule, mapping, added)
        answer["removal"] = removal.to_dict()
        texts.append(removal.text())
    if as_json:
        print_json(answer)
    else:
        click.echo("\n\n".join(texts))


def _by_arithmetic(remove: str, granule: str, mapping: str, added: str | None) -> Removal:
    from ..sizing import removal

    return removal.by_arithmetic(remove, granule=granule, mapping=mapping, added=added)


def _in_tables(file: str, remove: str) -> Removal:
    from ..dumps.image import kind_of
    from ..errors import SpecError
    from ..machine.machine import Machine
    from ..sizing import removal

    kind = kind_of(file)
    if kind != "npz":
        untold = {"ptdump": "a text does not tell physical addresses"}
        why = untold.get(kind, "a vmcore does not tell which memory was added")
        raise SpecError(f"{file}: a removal is asked of a table image (.npz); {why}")
    return removal.in_tables(Machine.load(file), remove, file)
