"""``vmemmap where``."""

from __future__ import annotations

import click

from . import hint_options, json_option, print_json


@click.command("where")
@click.argument("what", nargs=-1, required=True, metavar="[DUMP] ADDRESS|PFN")
@hint_options
@json_option
def command(what: tuple[str, ...], as_json: bool, ram: tuple[str, ...], **hints: str | None) -> None:
    """Print what an address is: region, walk, permissions, physical address, struct page, hugepage, memory block.

    DUMP is a table image (.npz), a kernel_page_tables text or a vmcore; without it arithmetic says what it can, of the
    machine that --granule, --va-bits, --kernel and --memstart name (4K, 48 bits, 6.1). A number of more than 52 bits,
    as 0xffff…, is a virtual address, of a struct page too; any other is a PFN, or a physical address if only that is
    RAM. pfn:N, phys:N and va:N say which is meant.

    \b
    Examples:
      vmemmap where capture.npz 0xffff000008200000
      vmemmap where capture.npz 0x48000
      vmemmap where vmcore 0xfffffc0000200040 --json
      vmemmap where 0xfffffdffc1200000 --kernel 6.12 --memstart 0x40000000
    """
    from ..dumps import where
    from ..dumps.dump import Hints
    from ._progress import waiting

    *dumps, query = what
    if len(dumps) > 1:
        raise click.UsageError(f"expected one dump and one address, found {len(what)} arguments")
    with waiting(f"reading {dumps[0]}" if dumps else "reading"):
        answer = where.where(query, dumps[0] if dumps else None, Hints.parse(ram=ram, **hints))
    if as_json:
        print_json(answer.to_dict())
    else:
        click.echo(answer.text())
