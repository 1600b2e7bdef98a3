"""Pictures for a notebook or a paper, with matplotlib (extra ``plot``): what is saved, what it costs, how it is mapped.

Each function draws on `axes`, or on axes of its own, and returns them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import SpecError

if TYPE_CHECKING:
    from .machine.machine import Machine

__all__ = ["modelled_cost", "savings", "vmemmap_map"]

#: Kind of piece → colour, as in the report.
COLOURS = {"block": "#8fcfa6", "rw": "#8fb9ee", "ro": "#f0b566", "none": "#eeeeee"}


def _axes(axes: Any, **size: Any) -> Any:
    if axes is not None:
        return axes
    try:
        import matplotlib  # pyright: ignore
    except ImportError as error:
        raise SpecError("a plot needs matplotlib: pip install 'vmemmap[plot]'") from error
    return import_module(f"{matplotlib.__name__}.pyplot").subplots(**size)[1]


def savings(
    memory: int | str, *, granules: Sequence[str] = ("4K", "16K", "64K"), share: float = 0.5, axes: Any = None
) -> Any:
    """What HVO gives back, by granule and hugepage size, if a share of the memory is in hugepages of that size.

    Args:
        memory: RAM of the machine, bytes or text.
        granules: Which to compare.
        share: How much of the memory is in hugepages: between 0 and 1.
        axes: Where to draw.

    Returns:
        The axes.

    Raises:
        SpecError: matplotlib is not installed, or a size makes no sense.
    """
    from .sizing.estimate import estimate
    from .spec import HUGEPAGE_SIZES, format_size, parse_granule, parse_size

    total = parse_size(memory, "memory")
    drawn = _axes(axes, layout="constrained")
    labels: list[str] = []
    for granule in granules:
        heights: list[float] = []
        begin = len(labels)
        for size in HUGEPAGE_SIZES[parse_granule(granule)]:
            amount = int(total * share) // size * size
            if amount:
                labels.append(f"{format_size(size)}\n{granule} pages")
                heights.append(estimate(total, {size: amount}, granule=granule).net_saved / (1 << 30))
        drawn.bar(range(begin, len(labels)), heights, label=granule)
    drawn.set_xticks(range(len(labels)), labels)
    drawn.set_ylabel("GiB saved, less the tables of splits")
    drawn.set_title(f"{format_size(total)} of RAM, {share:.0%} of it in hugepages")
    return drawn


def modelled_cost(
    rows: Iterable[Mapping[str, Any]], *, operation: str | None = None, machine: str | None = None, axes: Any = None
) -> Any:
    """Modelled nanoseconds by number of CPUs, a line for each policy: of rows as ``vmemmap compare --json`` has them.

    Args:
        rows: Objects with ``policies`` and ``modelled``.
        operation: Which of the modelled operations; the first by default.
        machine: Which of the modelled machines; the first by default.
        axes: Where to draw.

    Returns:
        The axes.

    Raises:
        SpecError: matplotlib is not installed, or nothing is modelled.
    """
    listed = [(row, row.get("modelled") or ()) for row in rows]
    first = next((found[0] for _, found in listed if found), None)
    if first is None:
        raise SpecError("no row has a modelled cost")
    wanted = (operation or first["operation"], machine or first.get("machine"))
    drawn = _axes(axes, layout="constrained")
    for row, found in listed:
        points = sorted(
            (one["cpus"], one["p50_ns"]) for one in found if (one["operation"], one.get("machine")) == wanted
        )
        if points:
            label = ", ".join(f"{name}={value}" for name, value in row["policies"].items())
            drawn.plot(*zip(*points, strict=True), marker="o", label=label)
    drawn.set(xscale="log", yscale="log", xlabel="CPUs", ylabel="modelled ns (median)", title=str(wanted[0]))
    drawn.legend()
    return drawn


def vmemmap_map(machine: Machine, *, axes: Any = None) -> Any:
    """How the vmemmap of a machine is mapped: a bar for the struct pages of each section, as in the report.

    Args:
        machine: A machine, or a dump loaded as one.
        axes: Where to draw.

    Returns:
        The axes.

    Raises:
        SpecError: matplotlib is not installed, or nothing of vmemmap is mapped.
    """
    from .report.mapped import WIDTH, mapped_text

    found = mapped_text(machine.ptdump("vmemmap"), machine.granule)
    if found is None:
        raise SpecError("nothing of vmemmap is mapped")
    drawn = _axes(axes, layout="constrained")
    for row, bar in enumerate(found.bars):
        for x, width, kind in bar.pieces:
            drawn.barh(row, width / WIDTH, left=x / WIDTH, color=COLOURS[kind])
    names = [f"{bar.start:#x}" + (f" × {bar.count}" if bar.count > 1 else "") for bar in found.bars]
    drawn.set_yticks(range(len(names)), names, family="monospace")
    drawn.invert_yaxis()
    drawn.set_xlabel(f"share of a section's {found.unit} of vmemmap")
    return drawn
