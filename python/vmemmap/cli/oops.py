"""``vmemmap oops``."""

from __future__ import annotations

import click

from . import json_option, machine_options, print_json

#: Most bytes of a log that are read.
LIMIT = 64 << 20


@click.command("oops")
@click.argument("file", metavar="FILE|-")
@machine_options
@json_option
def command(
    file: str, as_json: bool, kernel: str | None, granule: str | None, va_bits: str | None, memstart: str | None
) -> None:
    """Print the table walk of an arm64 oops in words: region, entry that decides, why it faulted.

    FILE is a kernel log, - standard input; the first oops in it is told. Of an address in vmemmap: which struct page
    (--memstart
    makes the PFN absolute), which hugepages it would be part of, and of which of I1 to I34 it would be a symptom.
    --granule and
    --va-bits are for kernels before 4.15, whose oops does not say them, --kernel for a log without a release.

    \b
    Examples:
      dmesg | vmemmap oops -
      vmemmap oops console.log --memstart 0x40000000 --json
    """
    from ..dumps import oops
    from ..dumps.dump import Hints
    from ..errors import ImageError

    with click.open_file(file, "rb") as stream:
        data: bytes = stream.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise ImageError(f"{file}: more than {LIMIT >> 20}M")
    text = data.decode("utf-8", "replace")
    try:
        answer = oops.explain(text, Hints.parse(kernel=kernel, granule=granule, va_bits=va_bits, memstart=memstart))
    except ImageError as error:
        raise ImageError(f"{file}: {error}") from None
    if as_json:
        print_json(answer.to_dict())
    else:
        click.echo(answer.text_lines())
