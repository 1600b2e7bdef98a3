"""Programs that can be repeated: what an actor takes away in a round it puts back at the end of it.

An exploration runs a program once. A stress repeats it until its time is over, and a block that has been removed cannot
be removed again: without its return every later round would be an errno, and the race would have been tried once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from .steps import OperationDict

__all__ = ["put_back"]

Operations = Iterable[OperationDict]


class _Held:
    """What the operations so far leave behind: the state of each range of memory, and hugepages by size and place."""

    def __init__(self) -> None:
        self.memory: dict[tuple[int, int], OperationDict] = {}
        self.online: dict[tuple[int, int], OperationDict] = {}
        self.hugepages: dict[tuple[int, int | None], int] = {}

    def after(self, operations: Operations) -> _Held:
        """The same with more operations, each taken to succeed."""
        held = _Held()
        held.memory, held.online, held.hugepages = dict(self.memory), dict(self.online), dict(self.hugepages)
        for operation in operations:
            held._run(operation)
        return held

    def _run(self, operation: OperationDict) -> None:
        name = cast("str", operation["op"])
        if name in ("hugetlb_alloc", "hugetlb_free"):
            page = cast("tuple[int, int | None]", (operation["hstate"], operation.get("at")))
            self.hugepages[page] = self.hugepages.get(page, 0) + (1 if name == "hugetlb_alloc" else -1)
        if not name.startswith("memory_") or "bytes" not in operation:
            return
        block = cast("tuple[int, int]", (operation["start"], operation["bytes"]))
        if name == "memory_add":
            self.memory[block] = operation
        elif name == "memory_online":
            self.online[block] = operation
        elif name == "memory_offline":
            self.online.pop(block, None)
        elif name in ("memory_remove", "memory_offline_and_remove"):
            self.online.pop(block, None)
            self.memory.pop(block, None)


def put_back(setup: Operations, program: Operations) -> list[OperationDict]:
    """What takes the machine from where a program leaves it back to where `setup` left it.

    Hugepages go first, since their block could not be removed otherwise. Nothing is needed behind a program that does
    so itself.
    """
    before = _Held().after(setup)
    after = before.after(program)
    back: list[OperationDict] = []
    for hstate, at in dict.fromkeys((*before.hugepages, *after.hugepages)):
        more = after.hugepages.get((hstate, at), 0) - before.hugepages.get((hstate, at), 0)
        page: OperationDict = {"op": "hugetlb_free" if more > 0 else "hugetlb_alloc", "hstate": hstate, "at": at}
        back += [page] * abs(more)
    for start, size in dict.fromkeys((*before.memory, *after.memory)):
        block = (start, size)
        where: OperationDict = {"start": start, "bytes": size}
        if block in after.online and block not in before.online:
            back.append({"op": "memory_offline", **where})
        if block in after.memory and block not in before.memory:
            back.append({"op": "memory_remove", **where})
        if block in before.memory and block not in after.memory:
            back.append(dict(before.memory[block]))
        if block in before.online and block not in after.online:
            back.append(dict(before.online[block]))
    return back
