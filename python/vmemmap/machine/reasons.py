"""Why the kernel refused an operation, in words: ``memory_add of 100M at 0x140000000: EINVAL: not a multiple of …``."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from ..spec import HUGEPAGE_SIZES, format_size

if TYPE_CHECKING:
    from .._core import Machine as Core

__all__ = ["refusal"]

_WHY: Final = {
    ("memory_online", errno.EINVAL): "a block is online already",
    ("memory_online", errno.ENODEV): "there is no such memory block",
    ("memory_offline", errno.EINVAL): "a block is not online, or has holes",
    ("memory_offline", errno.ENODEV): "there is no such memory block",
    ("memory_offline", errno.EBUSY): "a page in it cannot move, or a hugepage cannot be dissolved",
    ("memory_offline", errno.EPERM): (
        "boot memory cannot be offlined on arm64; nor, from 7.2 on, a block inside a larger leaf (notifier failure)"
    ),
    ("memory_remove", errno.EBUSY): "a block is online: it must be offline first",
    (
        "memory_remove",
        errno.EINVAL,
    ): "not whole blocks that were hot-added, or blocks with and without struct pages of their own",
    ("memory_offline_and_remove", errno.EBUSY): "a page in it cannot move, or a hugepage cannot be dissolved",
    (
        "memory_offline_and_remove",
        errno.EPERM,
    ): ("boot memory cannot be offlined on arm64; nor, from 7.2 on, a block inside a larger leaf (notifier failure)"),
    ("memory_offline_and_remove", errno.EINVAL): "not whole blocks that were hot-added",
    ("hugetlb_alloc", errno.EBUSY): "a frame of the page is in use",
    ("hugetlb_alloc", errno.EINVAL): "no page of that size can begin there",
    ("hugetlb_alloc", errno.ENOMEM): "no free memory holds a page of that size",
    ("hugetlb_demote", errno.EINVAL): "no smaller size to demote to",
    ("hugetlb_demote", errno.EBUSY): "no free page that is not promised to a mapping",
    ("hugetlb_reserve", errno.ENOMEM): "not so many free pages that are not promised already",
    ("hugetlb_get", errno.ENOSPC): "no page is free",
    ("hugetlb_get", errno.ENOMEM): "no page is free",
    ("hugetlb_put", errno.EINVAL): "nobody uses it",
    ("hugetlb_free", errno.ENOMEM): "no memory for the struct pages that HVO gave away",
    ("hugetlb_free", errno.EBUSY): "no such page is free in the pool",
    ("hugetlb_free", errno.EINVAL): "there is no such page in the pool",
}
_EHWPOISON: Final = 133
"""Not in Python's ``errno``."""
_ANYWHERE: Final = {
    errno.ENOMEM: "no memory is left for it",
    errno.EINTR: "interrupted",
    _EHWPOISON: "a page of it is poisoned",
}


def refusal(core: Core, op: str, fields: Mapping[str, int | bool | str | None], number: int) -> str:
    """The message for an errno that operation `op` returned.

    Args:
        core: The machine that refused it.
        op: Name of the operation.
        fields: Its fields.
        number: The errno, positive.

    Returns:
        What was asked for, the errno's name and the reason.
    """
    name = "EHWPOISON" if number == _EHWPOISON else errno.errorcode.get(number, str(number))
    return f"{_what(core, op, fields)}: {name}: {_why(core, op, fields, number)}"


def _what(core: Core, op: str, fields: Mapping[str, int | bool | str | None]) -> str:
    words = op
    start, size = fields.get("start"), fields.get("bytes")
    if isinstance(start, int) and isinstance(size, int):
        words += f" of {format_size(size)} at {start:#x}"
    hstate = fields.get("hstate")
    if isinstance(hstate, int):
        words += f" of {format_size(HUGEPAGE_SIZES[core.granule][hstate])}"
    at = fields.get("at")
    if isinstance(at, int):
        words += f" at PFN {at:#x}"
    others = [
        f"{key} {value}"
        for key, value in fields.items()
        if key not in ("start", "bytes", "hstate", "at") and value not in (None, False)
    ]
    return words + (f" ({', '.join(others)})" if others else "")


def _why(core: Core, op: str, fields: Mapping[str, int | bool | str | None], number: int) -> str:
    start, size = fields.get("start"), fields.get("bytes")
    if op.startswith("memory") and number == errno.EINVAL and isinstance(start, int) and isinstance(size, int):
        block = core.section_size
        if not size:
            return "a range of no bytes"
        if start % block or size % block:
            return f"not a multiple of the memory block size, {format_size(block)}"
        if op == "memory_add":
            return _not_addable(core, start, size, bool(fields.get("memmap_on_memory")))
    if op == "memory_add" and number == errno.EEXIST:
        return "a part of it is there already"
    return _WHY.get((op, number)) or _ANYWHERE.get(number) or "refused"


def _not_addable(core: Core, start: int, size: int, memmap_on_memory: bool) -> str:
    layout = core.layout()
    low = layout["memstart_addr"]
    end = low + layout["PAGE_END"] - layout["PAGE_OFFSET"]
    if start < low or start + size > end:
        return f"the linear map has addresses for {max(0, low):#x}-{end:#x} only (mhp_range_allowed)"
    if memmap_on_memory:
        return "memmap_on_memory is not supported for that size (mhp_supports_memmap_on_memory)"
    ranges = ", ".join(f"{at:#x}-{at + length:#x}" for at, length, boot in core.ram() if not boot)
    return (
        f"this machine has no room for memory there; it has at {ranges}"
        if ranges
        else "this machine has no room for hot-added memory"
    )
