"""Kernel operations as the core takes them: a name in snake_case of ``Operation`` in rust/kernel, and its fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import KernelError
from .reasons import refusal

if TYPE_CHECKING:
    from .._core import Machine as Core

__all__ = ["exactly", "run"]


def run(core: Core, op: str, **fields: int | bool | str | None) -> int:
    """Run one operation to its end and return its result.

    Raises:
        KernelError: The kernel returned an errno; why, in words.
    """
    try:
        return core.run(json.dumps({"op": op, **fields}))
    except KernelError as error:
        raise KernelError(error.errno, refusal(core, op, fields, error.errno or 0)) from None


def exactly(core: Core, op: str, work: Callable[[], list[int]], hstate: int, heads: Sequence[int]) -> list[int]:
    """Run what concerns exactly the hugepages at `heads`, whose refusal is told as that of `op`.

    Raises:
        KernelError: The kernel returned an errno; why, in words.
    """
    try:
        return work()
    except KernelError as error:
        named = ", ".join(f"{head:#x}" for head in heads[:4]) + (", …" if len(heads) > 4 else "")
        fields = {"hstate": hstate, "PFN": named}
        raise KernelError(error.errno, refusal(core, op, fields, error.errno or 0)) from None
