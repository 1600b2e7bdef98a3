"""What the drawings of a trace have in common: where actors meet, and descriptors in words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..lab.trace import Step

_PLACE = re.compile(r"\b(pte|pmd|pud|p4d|pgd|va|frame|table|variable) (0x[0-9a-f]+|\d+)\b")
#: Entries whose address, as the core names it, is the virtual address rounded down by this.
_TRANSLATES = (
    ("pte", 0xFFF),
    ("pte", 0x3FFF),
    ("pte", 0xFFFF),
    ("pmd", 0x1FFFFF),
    ("pmd", 0x1FFFFFF),
    ("pmd", 0x1FFFFFFF),
)


def places(step: Step) -> list[str]:
    """What a step touches, by the core's names (``pte 0xffff…``, ``frame 0x…``, ``variable 4224``), else by address. An
    access through a virtual address touches the entries that translate it, whatever the granule."""
    found = _PLACE.search(step.note)
    if found is not None and found[1] == "variable" and step.op == "var_rmw":
        # A counter that several add to orders nothing that a reader of the picture would ask about.
        return []
    if found is None:
        return [] if step.address is None else [f"at {step.address:#x}"]
    kind, text = found[1], found[2]
    if kind != "va" or step.op.startswith("tlbi"):
        return [f"{kind} {text}"]
    va = int(text, 0)
    return [f"{level} {va & ~mask:#x}" for level, mask in _TRANSLATES]


def writes(step: Step) -> bool:
    """A read leaves no new word; giving a frame back changes what it is."""
    return step.new is not None or step.op == "free"


def conflicts(trace: Sequence[Step]) -> dict[int, int]:
    """Index of a step → index of the latest earlier step of *another* actor on the same place, one of the two a
    write.
    """
    last: dict[str, dict[str, tuple[int, bool]]] = {}
    found: dict[int, int] = {}
    for index, step in enumerate(trace):
        for place in places(step):
            before = last.setdefault(place, {})
            rivals = [at for actor, (at, wrote) in before.items() if actor != step.actor and (wrote or writes(step))]
            if rivals:
                found[index] = max([*rivals, found.get(index, 0)])
            before[step.actor] = (index, writes(step) and not place.startswith("va"))
    return found


def descriptor(value: int) -> str:
    """A descriptor in words, other values in hexadecimal: ``page ro 0x80441000``."""
    if value == 0:
        return "none"
    address = value & 0x0000_FFFF_FFFF_F000
    kind = value & 3
    if value >> 52 == 0 or kind not in (1, 3):
        return f"{value:#x}"
    if kind == 1:
        return f"block {address:#x}"
    if not value & 1 << 10:
        return f"table {address:#x}"
    return f"page {'ro' if value & 1 << 7 else 'rw'} {address:#x}"


def cut(text: str, width: int) -> str:
    """Text that fits, with an ellipsis where it did not."""
    return text if len(text) <= width else text[: width - 1] + "…"
