"""``vmemmap layout``."""

from __future__ import annotations

import click

from . import HOLDS, VIOLATED, json_option, print_json


@click.command("layout")
@click.option("--granule", default="4K", show_default=True, help="4K, 16K or 64K.")
@click.option("--va-bits", default="48", show_default=True, help="36, 39, 42, 47, 48 or 52.")
@click.option("--kernel", default="6.1", show_default=True, help="2021, 6.1, 6.12, 6.12.117, 7.2 or 7.3.")
@click.option("--memstart", metavar="ADDRESS", help="memstart_addr: where the linear map begins.")
@click.option("--block-size", help="memory_block_size_bytes, one section by default.")
@click.option("--add", "adds", multiple=True, metavar="SIZE@ADDRESS", help="Would this range be accepted for hot add?")
@click.option(
    "--remove", "removes", multiple=True, metavar="SIZE@ADDRESS", help="Would this range be accepted for hot remove?"
)
@click.option(
    "--ram",
    "ram",
    multiple=True,
    metavar="SIZE@ADDRESS",
    help="RAM there at boot; struct pages that it needs, by whole sections.",
)
@json_option
def command(
    granule: str,
    va_bits: str,
    kernel: str,
    memstart: str | None,
    block_size: str | None,
    adds: tuple[str, ...],
    removes: tuple[str, ...],
    ram: tuple[str, ...],
    as_json: bool,
) -> int:
    """Print the VA layout, table geometry and section sharing of a machine; or whether ranges would be hot-added or
    removed.

    Exit code 1 if a range would be refused; the reason is the kernel's own test.

    \b
    Examples:
      vmemmap layout --granule 64K --va-bits 52 --kernel 6.12
      vmemmap layout --add 768M@0xc8000000 --memstart 0x40000000 --ram 2G@0x40000000
      vmemmap layout --remove 128M@0x80000000 --granule 16K
      vmemmap layout --ram 1000M@0x40000000 --ram 1G@0x80000000
    """
    from ..sizing import hotplug_range as ranges
    from ..sizing import layout as layouts
    from ..spec import parse_address, parse_size

    layout = layouts.layout(granule, va_bits, kernel)
    boot = [ranges.parse_at(text, "ram") for text in ram]
    size = None if block_size is None else _block_size(parse_size(block_size, "block-size"), layout.section_size)
    start = parse_address(memstart, "memstart")
    memmap = ranges.memmap_of(layout, boot) if boot else None
    answers = [ranges.add(layout, text, memstart=start, block_size=size, ram=boot) for text in adds]
    answers += [ranges.remove(layout, text, block_size=size, boot=boot) for text in removes]
    if as_json:
        more = {"ranges": [answer.to_dict() for answer in answers], "ram": None if memmap is None else memmap.to_dict()}
        print_json(layout.to_dict() | (more if answers or memmap is not None else {}))
    elif answers or memmap is not None:
        head = f"{granule} pages, {va_bits}-bit addresses, Linux {kernel}"
        click.echo(
            "\n".join([head, *([memmap.text()] if memmap is not None else []), *(answer.text() for answer in answers)])
        )
    else:
        click.echo(layout.text())
    return HOLDS if all(answer.accepted for answer in answers) else VIOLATED


def _block_size(size: int, section: int) -> int:
    from ..errors import SpecError
    from ..spec import format_size

    if size < section or size & (size - 1):
        raise SpecError(
            f"block-size is {format_size(size)}: expected a power of two of at least a section, {format_size(section)}"
        )
    return size
