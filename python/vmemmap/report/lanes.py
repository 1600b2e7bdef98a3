"""A trace as a picture: one lane per actor, time downwards, the steps at which they meet in boxes.

Steps that no other actor could notice are folded into one line; arrows lead from a step back to the other actor's step
that it depends on. Pure SVG with classes, so that the page's style sheet decides about light, dark and paper.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ..lab.trace import Step, Violation

LANE = 372
GAP = 46
LEFT = 46
TOP = 46
BOX = 46
FOLD = 22
SPACE = 9
#: Characters that fit a box in the font of the second line.
WIDTH = 53


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


@dataclass(frozen=True)
class Row:
    """One line of the picture: a step in a box, or several folded."""

    lane: int
    steps: tuple[Step, ...]
    boxed: bool

    @property
    def height(self) -> int:
        """In pixels, without the space below."""
        return BOX if self.boxed else FOLD


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


def rows(trace: Sequence[Step], fatal: int) -> list[Row]:
    """Boxes for the steps at which actors meet and for the fatal one, the rest folded. `fatal` is an index."""
    meeting = conflicts(trace)
    boxed = {fatal, *meeting, *meeting.values()}
    lanes = list(dict.fromkeys(step.actor for step in trace))
    found: list[Row] = []
    folded: list[Step] = []

    def flush() -> None:
        if folded:
            found.append(Row(lanes.index(folded[0].actor), tuple(folded), boxed=False))
            folded.clear()

    for index, step in enumerate(trace):
        if folded and folded[-1].actor != step.actor:
            flush()
        if index in boxed:
            flush()
            found.append(Row(lanes.index(step.actor), (step,), boxed=True))
        else:
            folded.append(step)
    flush()
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


def _name(step: Step) -> str:
    """Operation, and what it works on if that has a kind: ``write pte``."""
    found = _PLACE.search(step.note)
    return f"{step.op} {found[1]}" if found and found[1] not in ("va", "frame", "variable") else step.op


def _fold_label(steps: Sequence[Step]) -> str:
    if len(steps) == 1:
        return steps[0].op
    count = steps[-1].step - steps[0].step + 1
    names = list(dict.fromkeys(step.note.partition(":")[0] or step.op for step in steps))
    shown = ", ".join(names[:2]) + (", …" if len(names) > 2 else "")
    return f"{count} steps: {shown}"


def _detail(step: Step) -> str:
    parts = [] if step.address is None else [f"{step.address:#x}"]
    if step.old is not None and step.new is not None:
        parts.append(f"{descriptor(step.old)} → {descriptor(step.new)}")
    elif step.new is not None:
        parts.append(f"→ {descriptor(step.new)}")
    elif step.old is not None:
        parts.append(f"= {descriptor(step.old)}")
    return "  ".join(parts)


def _full(step: Step) -> str:
    at = f"\naddress {step.address:#018x}" if step.address is not None else ""
    old = f"\nold {step.old:#018x}" if step.old is not None else ""
    new = f"\nnew {step.new:#018x}" if step.new is not None else ""
    return f"step {step.step}, CPU {step.cpu}, {step.actor}\n{step.op}{at}{old}{new}\n{step.note}".strip()


def svg(trace: Sequence[Step], violation: Violation, title: str) -> str:
    """The picture of a trace that ends in `violation`. Empty text for an empty trace."""
    if not trace:
        return ""
    fatal = next((i for i, step in enumerate(trace) if step.step == violation.step), len(trace) - 1)
    lanes = list(dict.fromkeys(step.actor for step in trace))
    picture = rows(trace, fatal)
    width = LEFT + len(lanes) * LANE + (len(lanes) - 1) * GAP + 12
    x = [LEFT + lane * (LANE + GAP) for lane in range(len(lanes))]
    out: list[str] = []
    place: dict[int, tuple[int, int, int]] = {}
    y = TOP + 8
    fatal_step = trace[fatal].step
    for row in picture:
        left = x[row.lane]
        first = row.steps[0]
        if row.boxed:
            place[first.step] = (row.lane, y, row.height)
            kind = " fatal" if first.step == fatal_step else ""
            head = cut(_name(first), 40)
            side = cut(first.note.partition(":")[0], 50 - len(head))
            out.append(
                f'<g class="step lane{row.lane % 4}{kind}"><title>{escape(_full(first))}</title>'
                f'<rect x="{left}" y="{y}" width="{LANE}" height="{row.height}" rx="7"/>'
                f'<text class="op" x="{left + 12}" y="{y + 19}">{escape(head)}</text>'
                f'<text class="side" x="{left + LANE - 10}" y="{y + 19}">{escape(side)}</text>'
                f'<text class="word" x="{left + 12}" y="{y + 37}">{escape(cut(_detail(first), WIDTH))}</text>'
                f'<text class="n" x="{LEFT - 12}" y="{y + 28}">{first.step}</text></g>'
            )
        else:
            hint = "\n".join(f"{step.step} {step.op} {_detail(step)}" for step in row.steps[:24])
            out.append(
                f'<g class="fold lane{row.lane % 4}"><title>{escape(hint)}</title>'
                f'<line x1="{left + 12}" y1="{y + 3}" x2="{left + 12}" y2="{y + FOLD - 3}"/>'
                f'<text x="{left + 22}" y="{y + 15}">{escape(cut(_fold_label(row.steps), 52))}</text></g>'
            )
        y += row.height + SPACE
    height = y + 10
    heads = [
        f'<g class="head lane{i % 4}">'
        f'<line x1="{x[i] + LANE // 2}" y1="{TOP}" x2="{x[i] + LANE // 2}" y2="{height - 6}"/>'
        f'<text x="{x[i] + LANE // 2}" y="22">{escape(cut(name, 30))}</text>'
        f'<text class="cpu" x="{x[i] + LANE // 2}" y="38">CPU {next(s.cpu for s in trace if s.actor == name)}</text>'
        "</g>"
        for i, name in enumerate(lanes)
    ]
    arrows = [
        _arrow(place, x, trace[source].step, trace[target].step, trace[target].step == fatal_step)
        for target, source in conflicts(trace).items()
    ]
    return (
        f'<svg class="lanes" role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{escape(title)}</title>'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z"/></marker></defs>'
        f"{''.join(heads)}{''.join(arrows)}{''.join(out)}</svg>"
    )


def _arrow(place: dict[int, tuple[int, int, int]], x: list[int], source: int, target: int, fatal: bool) -> str:
    """From the side of the earlier step's box to the side of the later one's."""
    lane_a, y_a, h_a = place[source]
    lane_b, y_b, h_b = place[target]
    right = lane_b > lane_a
    x1 = x[lane_a] + LANE if right else x[lane_a]
    x2 = x[lane_b] if right else x[lane_b] + LANE
    y1, y2 = y_a + h_a // 2, y_b + h_b // 2
    middle = (x1 + x2) // 2
    kind = "arrow fatal" if fatal else "arrow"
    return f'<path class="{kind}" d="M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"/>'
