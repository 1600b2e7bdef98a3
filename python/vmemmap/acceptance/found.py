"""What ``vmemmap run`` finds in its input, and the machine that it makes of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from .. import _core
from ..dumps.image import kind_of, read_ptdump
from ..dumps.releases import hvo_left_open
from ..errors import ImageError, KernelError
from ..lab.setup import STRUCT_PAGE, Setup
from ..machine.machine import DRAM, Machine
from ..sizing.answers import CoreLayout
from ..spec import GRANULES, KERNELS, VA_BITS, format_size

_LINE = re.compile(r"0x([0-9a-f]{16})-0x([0-9a-f]{16})\s+(\S+)\s+(PGD|P4D|PUD|PMD|PTE)(?:\s+(RW|ro)\b)?")
_MARKER = re.compile(r"---\[ (.+) \]---")


def shipped() -> Path:
    """The capture that the package ships: 6.1, 4K, 16 optimised hugepages in hot-added memory."""
    return Path(str(files("vmemmap") / "data" / "E2.npz"))


@dataclass(frozen=True)
class Found:
    """A machine like the one of the input, with room for a memory block that comes and goes.

    `image` is the table image to start from; without it (a text has no frames) the machine is booted with as much
    memory and as many hugepages. `stays` is the memory that never goes, in physical addresses.
    """

    path: Path
    facts: tuple[tuple[str, str], ...]
    granule: int
    va_bits: int
    kernel: str
    image: str | None
    boot_memory: int
    hugepages: int
    place: int
    stays: tuple[tuple[int, int], ...]
    hotplug: tuple[tuple[int, int], ...]
    #: The text of its vmemmap.
    dump: str = ""
    #: What more hugepages would make of it: in words, and the text. A dump's text has no frames to try it on.
    after: tuple[str, str] | None = None

    def configure(self, m: Setup) -> None:
        """Set a setup to this machine."""
        m.configure(
            granule=self.granule,
            va_bits=self.va_bits,
            boot_memory=self.boot_memory,
            hotplug=self.hotplug,
            image=self.image,
        )
        if not self.image and self.hugepages:
            m.setup(m.pmd_hugepage.resize(self.hugepages))


def find(path: Path) -> Found:
    """Load a table image or a dump's text.

    Raises:
        ImageError: Neither, or one that contradicts itself; one line.
    """
    kind = kind_of(path)
    if kind == "vmcore":
        raise ImageError(
            f"{path}: a vmcore: expected a table image (.npz) or kernel_page_tables text, which vmemmap ptdump prints"
        )
    return _from_image(path) if kind == "npz" else _from_text(path)


def _mappings(text: str) -> dict[str, str]:
    """Bytes of vmemmap by level and permission, as the dump shows them."""
    sums: Counter[str] = Counter()
    for start, end, _, level, permission in _LINE.findall(text):
        if permission:
            sums[f"{level} {permission}"] += int(end, 16) - int(start, 16)
    return {kind: format_size(size) for kind, size in sorted(sums.items())}


def _from_image(path: Path) -> Found:
    machine = Machine.load(path)
    blocks = machine.memory.blocks
    section = _core.layout(machine.granule, machine.va_bits, machine.kernel)["section_size"]
    present = {block.start for block in blocks}
    ranges = machine.memory.ranges
    places = [
        at
        for start, size, boot in ranges
        if not boot
        for at in range(start, start + size, section)
        if at not in present
    ]
    extra: tuple[tuple[int, int], ...] = ()
    if not places:
        # A machine without a hotplug region is given one behind its last RAM.
        end = max(start + size for start, size, _ in ranges)
        places = [-(-end // section) * section]
        extra = ((places[0], section),)
    pools = [(pool, pool.pages) for pool in machine.hugetlb.values() if pool.pages]
    optimised, total = _optimised(machine, [page for _, pages in pools for page in pages])
    dump = machine.ptdump("vmemmap")
    facts = [
        ("input", path.name),
        ("kernel behaviour", machine.kernel),
        ("granule, VA size", f"{format_size(machine.granule)}, {machine.va_bits} bits"),
        ("vmemmap", f"{_span(machine.granule, machine.va_bits, machine.kernel)}"),
        (
            "RAM",
            ", ".join(
                f"{format_size(size)} at {start:#x}{'' if boot else ' (hot-pluggable)'}" for start, size, boot in ranges
            ),
        ),
        (
            "memory blocks",
            f"{len(blocks)} of {format_size(section)}, {sum(b.state == 'online' for b in blocks)} online",
        ),
        ("translation tables", f"{len(machine.tables):,}"),
        ("vmemmap mappings", _listed(_mappings(dump))),
        ("hugepages", ", ".join(f"{len(pages)} × {format_size(pool.size)}" for pool, pages in pools) or "none"),
        ("HVO", f"{'on' if machine.hvo else 'off'}; {optimised} of {total} hugepages are optimised"),
        ("invariants broken at rest", ", ".join(sorted({v.invariant for v in machine.check()})) or "none"),
    ]
    return Found(
        path=path,
        facts=tuple(facts),
        granule=machine.granule,
        va_bits=machine.va_bits,
        kernel=machine.kernel,
        image=str(path),
        boot_memory=0,
        hugepages=0,
        place=places[-1],
        stays=tuple((block.start, block.size) for block in blocks if block.state == "online"),
        hotplug=extra,
        dump=dump,
        after=_more_hugepages(machine),
    )


#: Hugepages that are added to the input to show what HVO makes of its vmemmap.
MORE = 32


def _more_hugepages(machine: Machine) -> tuple[str, str] | None:
    """The vmemmap after as many of `MORE` hugepages more as there is room for; None if there is none for any."""
    # The PMD's size comes second, whatever the granule.
    size, pool = list(machine.hugetlb.items())[1]
    had = pool.nr_hugepages
    machine.hvo = True
    try:
        pool.nr_hugepages = had + MORE
    except KernelError:
        return None
    added = pool.nr_hugepages - had
    return (f"{added} hugepages of {size} more, optimised", machine.ptdump("vmemmap")) if added else None


def _optimised(machine: Machine, pages: list[tuple[int, int]]) -> tuple[int, int]:
    """Hugepages whose last tail page is mapped read-only, and all of them."""
    last = [machine.translate(machine.page_address(head + count - 1)) for head, count in pages]
    return sum(found.permissions.startswith("RO") for found in last), len(pages)


def _span(granule: int, va_bits: int, kernel: str) -> str:
    layout = _core.layout(granule, va_bits, kernel)
    return f"{layout['VMEMMAP_START']:#x} to {layout['VMEMMAP_END']:#x}"


def _listed(parts: Mapping[str, str]) -> str:
    return ", ".join(f"{size} {kind}" for kind, size in parts.items()) or "none"


def _from_text(path: Path) -> Found:
    """The machine whose layout has the markers of the dump. Physical addresses are not in a text: RAM is taken to start
    where it does on the captured machines, and hugepages are counted by their read-only tails."""
    text = read_ptdump(path)
    layout = _layout_of(text, path)
    granule, section = layout["granule"], layout["section_size"]
    lines = [
        (int(start, 16), int(end, 16), level, permission)
        for start, end, _, level, permission in _LINE.findall(text)
        if layout["VMEMMAP_START"] <= int(start, 16) < layout["VMEMMAP_END"] and permission
    ]
    if not lines:
        raise ImageError(f"{path}: maps nothing in vmemmap")
    mapped = sum(end - start for start, end, _, _ in lines)
    memory = -(-mapped // STRUCT_PAGE * granule // section) * section
    tails = sum(end - start for start, end, level, permission in lines if level == "PTE" and permission == "ro")
    hugepages = tails // (7 * granule)
    facts = [
        ("input", path.name),
        (
            "a machine of the same layout",
            f"{format_size(granule)} pages, {layout['va_bits']} bits, kernel {layout['kernel']}",
        ),
        ("vmemmap", f"{layout['VMEMMAP_START']:#x} to {layout['VMEMMAP_END']:#x}"),
        ("memory described", format_size(memory)),
        (
            "vmemmap mappings",
            _listed(_mappings("\n".join(line for line in text.splitlines() if _inside(line, layout)))),
        ),
        ("optimised hugepages", f"about {hugepages}, by their read-only tails"),
    ]
    left_open = hvo_left_open(layout["kernel"]) if hugepages else None
    if left_open is not None:
        facts.append(("whose HVO", left_open))
    return Found(
        path=path,
        facts=tuple(facts),
        granule=granule,
        va_bits=layout["va_bits"],
        kernel=layout["kernel"],
        image=None,
        boot_memory=memory,
        hugepages=hugepages,
        place=DRAM + memory,
        stays=tuple((start, section) for start in range(DRAM, DRAM + memory, section)),
        hotplug=((DRAM + memory, section),),
        dump=_core.ptdump_region(text, "vmemmap") or "",
    )


def _inside(line: str, layout: CoreLayout) -> bool:
    match = _LINE.match(line)
    return match is not None and layout["VMEMMAP_START"] <= int(match[1], 16) < layout["VMEMMAP_END"]


def _layout_of(text: str, path: Path) -> CoreLayout:
    """The layout that has this dump's linear map and vmemmap.

    Since 6.12 vmemmap ends at the same address whatever the granule. What tells granules apart then are the boundaries
    of lines, which are whole pages, and that vmemmap's first line is near its start.

    Raises:
        ImageError: None has.
    """
    marks: dict[str, int] = {}
    bounds = 0
    name = None
    for line in text.splitlines():
        marker, entry = _MARKER.match(line), _LINE.match(line)
        if marker:
            name = marker[1]
        elif entry:
            bounds |= int(entry[1], 16) | int(entry[2], 16)
            if name:
                marks.setdefault(name, int(entry[1], 16))
                name = None
    first = min(
        (
            int(line[1], 16)
            for line in _LINE.finditer(text)
            if int(line[1], 16) >= marks.get("vmemmap start", 0) and line[5]
        ),
        default=0,
    )
    found: list[CoreLayout] = []
    # The oldest kernel of each layout is tried last: 2021 and 6.1 share theirs.
    for kernel in ("6.1", *(k for k in KERNELS if k != "6.1")):
        for granule in GRANULES.values():
            for va_bits in VA_BITS[granule]:
                if va_bits == 52 and granule != GRANULES["64K"] and kernel in ("2021", "6.1"):
                    continue
                layout = _core.layout(granule, va_bits, kernel)
                if (
                    marks.get("Linear Mapping start") == layout["PAGE_OFFSET"]
                    and marks.get("vmemmap end") == layout["VMEMMAP_END"]
                    and first >= layout["VMEMMAP_START"]
                    and bounds % granule == 0
                ):
                    found.append(layout)
    if not found:
        raise ImageError(
            f"{path}: no arm64 layout has its linear map and vmemmap; is it a dump of arm64 without KASAN?"
        )
    return max(found, key=lambda layout: layout["VMEMMAP_START"])
