"""What HVO saves on a machine, and what its tables and splits cost: arithmetic, exact, without building the machine
(kernel-semantics H1, 7.9).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .errors import SpecError
from .layout import Layout, layout
from .spec import check_hugepage_size, check_whole_pages, format_size, parse_hugepages, parse_size

__all__ = ["Estimate", "PoolEstimate", "estimate"]

MAPPINGS: Final = ("blocks", "basepages")


@dataclass(frozen=True, slots=True)
class PoolEstimate:
    """Savings of the hugepages of one size; sizes in bytes."""

    size: int
    count: int
    vmemmap_pages_each: float
    """vmemmap pages of one hugepage; a fraction below one."""
    frames_freed_each: int
    granule: int

    @property
    def memory(self) -> int:
        """Bytes in hugepages of this size."""
        return self.size * self.count

    @property
    def frames_freed(self) -> int:
        """Frames that optimising all of them gives back."""
        return self.frames_freed_each * self.count

    @property
    def bytes_saved(self) -> int:
        """The same in bytes."""
        return self.frames_freed * self.granule

    @property
    def percent(self) -> float:
        """Bytes saved, of the memory in these hugepages."""
        return 100 * self.frames_freed_each * self.granule / self.size

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        saved_each = self.frames_freed_each * self.granule
        return {
            "size": self.size,
            "name": format_size(self.size),
            "count": self.count,
            "memory": self.memory,
            "vmemmap_pages_each": self.vmemmap_pages_each,
            "frames_freed_each": self.frames_freed_each,
            "bytes_saved_each": saved_each,
            "frames_freed": self.frames_freed,
            "bytes_saved": self.bytes_saved,
            "percent": self.percent,
            "bytes_saved_per_tib": saved_each * ((1 << 40) // self.size),
        }


@dataclass(frozen=True, slots=True)
class Estimate:
    """What HVO saves and costs on one machine; sizes in bytes."""

    memory: int
    layout: Layout
    reserved: int
    mapping: str
    """How vmemmap is mapped: ``blocks`` only where the granule maps vmemmap by blocks, which is 4K."""
    pools: tuple[PoolEstimate, ...]
    vmemmap: int
    """Bytes of struct pages, in whole sections."""
    tables: Mapping[int, int]
    """Level → tables that map vmemmap once it is populated, without the top table, which is static."""
    split_tables: int
    """Tables of level 3 that splitting blocks takes if the hugepages lie side by side; kept until hot remove."""
    split_tables_most: int
    """The same if they are strewn over as many sections as there are."""

    @property
    def granule(self) -> int:
        """Bytes of a base page."""
        return self.layout.granule

    @property
    def frames_freed(self) -> int:
        """Frames of struct pages given back."""
        return sum(pool.frames_freed for pool in self.pools)

    @property
    def bytes_saved(self) -> int:
        """The same in bytes, before what the splits cost."""
        return self.frames_freed * self.granule

    @property
    def split_cost(self) -> int:
        """Bytes of the tables that splitting takes."""
        return self.split_tables * self.granule

    @property
    def net_saved(self) -> int:
        """Bytes saved less the cost of the splits."""
        return self.bytes_saved - self.split_cost

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "memory": self.memory,
            "granule": self.granule,
            "va_bits": self.layout.va_bits,
            "kernel": self.layout.kernel,
            "reserved": self.reserved,
            "mapping": self.mapping,
            "vmemmap": self.vmemmap,
            "hugepages": [pool.to_dict() for pool in self.pools],
            "frames_freed": self.frames_freed,
            "bytes_saved": self.bytes_saved,
            "percent_of_memory": 100 * self.bytes_saved / self.memory,
            "tables": {str(level): count for level, count in self.tables.items()},
            "table_bytes": sum(self.tables.values()) * self.granule,
            "split_tables": self.split_tables,
            "split_tables_most": self.split_tables_most,
            "split_cost": self.split_cost,
            "net_saved": self.net_saved,
            "net_percent_of_memory": 100 * self.net_saved / self.memory,
        }

    def text(self) -> str:
        """For people: one row for each hugepage size, then the totals."""
        lines = [
            f"{format_size(self.memory)} of memory, {format_size(self.granule)} pages, vmemmap mapped by "
            f"{'2M blocks' if self.mapping == 'blocks' else 'base pages'}, {self.reserved} vmemmap page"
            f"{'s' * (self.reserved > 1)} kept for each hugepage",
            "",
            "  hugepage       number     memory  vmemmap pages  freed        saved    of it",
        ]
        for pool in self.pools:
            lines.append(
                f"  {format_size(pool.size):>8} {pool.count:>12} {format_size(pool.memory):>10} "
                f"{pool.vmemmap_pages_each:>14g} {pool.frames_freed_each:>6} {_human(pool.bytes_saved):>12} "
                f"{pool.percent:>7.3f}%"
            )
        level_names = {t.level: t.name for t in self.layout.levels}
        tables = ", ".join(f"{count} {level_names[level]}" for level, count in self.tables.items() if count) or "none"
        splits = f"{self.split_tables}"
        if self.split_tables_most != self.split_tables:
            splits += f" (up to {self.split_tables_most} if the hugepages are strewn)"
        rows = [
            ("struct pages", self.vmemmap, self._share(self.vmemmap)),
            ("tables that map them", sum(self.tables.values()) * self.granule, tables),
            ("saved", self.bytes_saved, f"{self._share(self.bytes_saved)}, {self.frames_freed} frames"),
            ("tables for split blocks", self.split_cost, splits),
            ("saved, net", self.net_saved, self._share(self.net_saved)),
        ]
        return "\n".join([*lines, "", *(f"  {name:<23}  {_human(size):>12}  {note}" for name, size, note in rows)])

    def _share(self, size: int) -> str:
        return f"{100 * size / self.memory:.3f}% of memory"


def estimate(
    memory: int | str,
    hugepages: Mapping[int | str, int | str] | Iterable[str],
    granule: int | str = "4K",
    reserved: int = 1,
    mapping: str = "blocks",
    va_bits: int | str = 48,
    kernel: str = "6.1",
) -> Estimate:
    """What HVO saves with that memory in hugepages, and what it costs.

    ``hugepages`` is hugepage size → bytes of memory in such pages, or texts like ``2M=400G``. ``reserved`` is the
    number of vmemmap pages kept for each hugepage: 1, or 2 as in 2021. With 16K and 64K pages vmemmap is always mapped
    by base pages, whatever ``mapping`` says.

    Raises ``SpecError``: more hugepages than memory, a size the granule lacks, not a whole number of pages, more memory
    than the linear map can hold.
    """
    machine = layout(granule, va_bits, kernel)
    total = parse_size(memory, "memory")
    if not total or total % machine.granule:
        page = format_size(machine.granule)
        raise SpecError(f"memory is {format_size(total)}: expected a whole number of {page} pages")
    start, end = machine.regions["linear map"]
    if total > end - start:
        raise SpecError(
            f"memory is {format_size(total)}: the linear map of {format_size(machine.granule)} pages and "
            f"{machine.va_bits} bits holds {format_size(end - start)}"
        )
    if reserved not in (1, 2) or isinstance(reserved, bool):
        raise SpecError(f"reserved is {reserved!r}: expected 1, or 2 as in 2021")
    if mapping not in MAPPINGS:
        raise SpecError(f"mapping is {mapping!r}: expected blocks or basepages")
    wanted = _wanted(hugepages, machine.granule)
    if sum(wanted.values()) > total:
        raise SpecError(f"hugepages take {format_size(sum(wanted.values()))}, but memory is {format_size(total)}")
    pools = tuple(
        PoolEstimate(size, amount // size, machine.vmemmap_pages(size), machine.frames_freed(size, reserved), machine.granule)
        for size, amount in wanted.items()
    )
    blocks = mapping == "blocks" and machine.granule == 4096
    sections = -(-total // machine.section_size)
    vmemmap = sections * machine.section_vmemmap
    split, most = _splits(machine, pools, sections) if blocks else (0, 0)
    return Estimate(
        memory=total,
        layout=machine,
        reserved=reserved,
        mapping="blocks" if blocks else "basepages",
        pools=pools,
        vmemmap=vmemmap,
        tables=_tables(machine, vmemmap, blocks),
        split_tables=split,
        split_tables_most=most,
    )


def _wanted(hugepages: Mapping[int | str, int | str] | Iterable[str], granule: int) -> dict[int, int]:
    if not isinstance(hugepages, Mapping):
        return parse_hugepages([hugepages] if isinstance(hugepages, str) else hugepages, granule)
    wanted: dict[int, int] = {}
    for name, amount in hugepages.items():
        size = check_hugepage_size(parse_size(name, "hugepage size"), granule)
        if size in wanted:
            raise SpecError(f"hugepages: {format_size(size)} is given twice")
        wanted[size] = check_whole_pages(parse_size(amount, f"memory of {format_size(size)} hugepages"), size)
    return wanted


def _tables(machine: Layout, vmemmap: int, blocks: bool) -> dict[int, int]:
    """Tables of each level below the top that map the first ``vmemmap`` bytes of vmemmap."""
    first = machine.regions["vmemmap"][0]
    counts: dict[int, int] = {}
    for table in machine.levels[1:]:
        served = (first + vmemmap - 1) // table.table_span - first // table.table_span + 1
        counts[table.level] = 0 if blocks and table.level == 3 else served
    return counts


def _splits(machine: Layout, pools: tuple[PoolEstimate, ...], sections: int) -> tuple[int, int]:
    """Blocks of vmemmap that optimising splits: at least, if hugepages lie side by side; at most.

    Hugepages are naturally aligned, so side by side they leave no gap whatever their sizes.
    """
    block = machine.section_vmemmap
    optimised = [(int(pool.vmemmap_pages_each) * machine.granule, pool.count) for pool in pools if pool.frames_freed_each]
    least = -(-sum(each * count for each, count in optimised) // block)
    most = sum(max(1, each // block) * count for each, count in optimised)
    return least, min(most, sections)


def _human(size: int) -> str:
    """A size in four significant digits of the unit that fits."""
    sign, size = ("-" if size < 0 else ""), abs(size)
    unit = min(max(0, (size.bit_length() - 1) // 10), 6)
    if not unit:
        return f"{sign}{size} B"
    return f"{sign}{size / (1 << 10 * unit):.2f} {'_KMGTPE'[unit]}iB"
