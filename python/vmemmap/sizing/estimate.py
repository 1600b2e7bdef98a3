"""What HVO saves on a machine, and what its tables and splits cost: arithmetic, exact, without building the machine
(kernel-semantics H1, 7.9).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, cast

from ..errors import SpecError
from ..spec import check_hugepage_size, check_whole_pages, format_size, parse_hugepages, parse_size
from .layout import Layout, layout

__all__ = ["BootFit", "Estimate", "PoolEstimate", "estimate", "human_size"]

MAPPINGS: Final = ("blocks", "basepages")
NO_HVO: Final = (
    "only arm64 has these pages, and mainline arm64 has had no HVO since early 2023 (commit 060a2c92d1b6, "
    "for break-before-make): "
    "this is what it would save"
)
"""Said of 16K and 64K pages."""


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

    def to_dict(self) -> dict[str, object]:
        """For JSON.

        Returns:
            The object that ``--json`` prints.
        """
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
class BootFit:
    """Whether the hugepages fit if all are allocated at boot; sizes in bytes, negative where memory does not suffice.

    Without early HVO all struct pages are allocated first and HVO gives back afterwards (for gigantic pages, which come
    from memblock, necessarily so). With it (Linux 6.15, ``mm/hugetlb_vmemmap.c: hugetlb_vmemmap_init_early``) the
    struct pages that HVO would free are never allocated, but only for boot-time pages whose size is a whole number of
    sections and of what one PMD of vmemmap describes; and those are mapped by base pages. Arithmetic of sizes: nothing
    is said of contiguity, alignment, nodes, nor of what else the kernel takes beyond `kernel_reserve`.
    """

    kernel_reserve: int
    """Memory to be left for everything that is not a hugepage, a struct page or a table that maps struct pages."""
    free: int
    """What is left without early HVO, beside hugepages, struct pages and the tables that map them."""
    early_sizes: tuple[int, ...]
    """Hugepage sizes that early HVO covers, of those asked for."""
    early_saved: int
    """Struct pages that early HVO does not allocate."""
    early_tables: int
    """Tables of level 3 that early HVO takes where there would have been blocks, in bytes."""

    @property
    def free_early(self) -> int:
        """What is left with early HVO."""
        return self.free + self.early_saved - self.early_tables

    @property
    def fits(self) -> bool:
        """Without early HVO at least the reserve is left, and something at all."""
        return self.free >= max(1, self.kernel_reserve)

    @property
    def fits_early(self) -> bool:
        """The same with early HVO."""
        return self.free_early >= max(1, self.kernel_reserve)

    def to_dict(self) -> dict[str, object]:
        """For JSON.

        Returns:
            The object that ``--json`` prints.
        """
        return {
            "kernel_reserve": self.kernel_reserve,
            "free": self.free,
            "fits": self.fits,
            "early_hvo": {
                "hugepages": [format_size(size) for size in self.early_sizes],
                "saved": self.early_saved,
                "tables": self.early_tables,
                "free": self.free_early,
                "fits": self.fits_early,
            },
        }

    def text(self) -> str:
        """For people: what is left without and with early HVO.

        Returns:
            Lines for people, without a newline at the end.
        """
        covered = " and ".join(map(format_size, self.early_sizes))
        early = (
            f"for {covered} pages; Linux 6.15, which has it on x86_64 only"
            if covered
            else "does not apply to these sizes"
        )
        left = f", {human_size(self.kernel_reserve)} to be left" if self.kernel_reserve else ""
        rows = [
            ("without early HVO", self.free, self.fits, ""),
            ("with early HVO", self.free_early, self.fits_early, f" ({early})"),
        ]
        return "\n".join(
            [
                f"  all of them at boot: memory left beside hugepages, struct pages and their tables{left}",
                *(
                    f"  {name:<23}  {human_size(size):>12}  {'fits' if fits else 'does not fit'}{note}"
                    for name, size, fits, note in rows
                ),
                "  sizes only: contiguity, alignment, nodes and the kernel's own needs are not counted",
            ]
        )


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
    boot: BootFit

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

    def to_dict(self) -> dict[str, object]:
        """For JSON.

        Returns:
            The object that ``--json`` prints.
        """
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
            "unmerged": {
                "tables": self.split_tables,
                "tables_most": self.split_tables_most,
                "bytes": self.split_cost,
                "bytes_most": self.split_tables_most * self.granule,
            },
            "boot": self.boot.to_dict(),
            "note": self.note,
        }

    @property
    def note(self) -> str | None:
        """That no mainline kernel with such pages has HVO."""
        return NO_HVO if self.granule != 4096 else None

    def text(self) -> str:
        """For people: one row for each hugepage size, then the totals.

        Returns:
            Lines for people, without a newline at the end.
        """
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
                f"{pool.vmemmap_pages_each:>14g} {pool.frames_freed_each:>6} {human_size(pool.bytes_saved):>12} "
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
        lines += ["", *(f"  {name:<23}  {human_size(size):>12}  {note}" for name, size, note in rows)]
        if self.split_tables:
            lines += [
                "",
                "  a split is never merged back: those tables outlive the hugepages, "
                "in boot memory for good. Hot remove frees",
                "  the table of a section, and memory added there again is mapped by a block",
            ]
        if any(pool.count for pool in self.pools):
            lines += ["", self.boot.text()]
        if self.note:
            lines += ["", f"  {self.note}"]
        return "\n".join(lines)

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
    kernel_reserve: int | str = 0,
) -> Estimate:
    """What HVO saves with that memory in hugepages, and what it costs.

    ``hugepages`` is hugepage size → bytes of memory in such pages, or texts like ``2M=400G``. ``reserved`` is the
    number of vmemmap pages kept for each hugepage: 1, or 2 as in 2021. With 16K and 64K pages vmemmap is always mapped
    by base pages, whatever ``mapping`` says. ``kernel_reserve`` is what must be left if all hugepages are allocated at
    boot.

    Kernel: ``Documentation/mm/vmemmap_dedup.rst``.

    Args:
        memory: Bytes of RAM, or text such as ``1T``.
        hugepages: Hugepage size → bytes of memory in such pages, or texts like ``2M=400G``.
        granule: Bytes of a base page, or text: ``4K``, ``16K``, ``64K``.
        reserved: vmemmap pages kept for each hugepage: 1, or 2 as in 2021.
        mapping: ``blocks`` or ``basepages``: how vmemmap is mapped at boot, with 4K pages.
        va_bits: Bits of a kernel virtual address: 36, 39, 42, 47, 48 or 52.
        kernel: Kernel behaviour, by name: ``6.1``, ``6.12`` and so on.
        kernel_reserve: Bytes that must be left if all hugepages are allocated at boot.

    Returns:
        Savings and costs, in bytes and frames.

    Raises:
        SpecError: More hugepages than memory, a size the granule lacks, not a whole number of pages, more
            memory than the linear map can hold.
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
        PoolEstimate(
            size, amount // size, machine.vmemmap_pages(size), machine.frames_freed(size, reserved), machine.granule
        )
        for size, amount in wanted.items()
    )
    blocks = mapping == "blocks" and machine.granule == 4096
    sections = -(-total // machine.section_size)
    vmemmap = sections * machine.section_vmemmap
    split, most = _splits(machine, pools, sections) if blocks else (0, 0)
    tables = _tables(machine, vmemmap, blocks)
    left = total - sum(pool.memory for pool in pools) - vmemmap - sum(tables.values()) * machine.granule
    return Estimate(
        memory=total,
        layout=machine,
        reserved=reserved,
        mapping="blocks" if blocks else "basepages",
        pools=pools,
        vmemmap=vmemmap,
        tables=tables,
        split_tables=split,
        split_tables_most=most,
        boot=_boot(machine, pools, blocks, left, parse_size(kernel_reserve, "kernel_reserve")),
    )


def _wanted(hugepages: Mapping[int | str, int | str] | Iterable[str], granule: int) -> dict[int, int]:
    if not isinstance(hugepages, Mapping):
        return parse_hugepages([hugepages] if isinstance(hugepages, str) else hugepages, granule)
    wanted: dict[int, int] = {}
    for name, amount in cast("Mapping[int | str, int | str]", hugepages).items():
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
    optimised = [
        (int(pool.vmemmap_pages_each) * machine.granule, pool.count) for pool in pools if pool.frames_freed_each
    ]
    least = -(-sum(each * count for each, count in optimised) // block)
    most = sum(max(1, each // block) * count for each, count in optimised)
    return least, min(most, sections)


def _boot(machine: Layout, pools: tuple[PoolEstimate, ...], blocks: bool, left: int, reserve: int) -> BootFit:
    """`left` is what remains without early HVO. The conditions are those of
    ``vmemmap_should_optimize_bootmem_page``.
    """
    described = machine.pmd_size // machine.struct_page_size * machine.granule
    early = [
        pool
        for pool in pools
        if pool.count and pool.frames_freed and not (pool.size % machine.section_size or pool.size % described)
    ]
    tables = (
        sum(pool.count * int(pool.vmemmap_pages_each) * machine.granule // machine.pmd_size for pool in early)
        if blocks
        else 0
    )
    return BootFit(
        kernel_reserve=reserve,
        free=left,
        early_sizes=tuple(pool.size for pool in early),
        early_saved=sum(pool.bytes_saved for pool in early),
        early_tables=tables * machine.granule,
    )


def human_size(size: int) -> str:
    """A size in four significant digits of the unit that fits.

    Args:
        size: Bytes.

    Returns:
        Text with a binary unit.
    """
    sign, size = ("-" if size < 0 else ""), abs(size)
    unit = min(max(0, (size.bit_length() - 1) // 10), 6)
    if not unit:
        return f"{sign}{size} B"
    return f"{sign}{size / (1 << 10 * unit):.2f} {'_KMGTPE'[unit]}iB"
