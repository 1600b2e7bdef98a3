"""Hugepage pools of a host, and the base page size that they and other files tell."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..spec import HUGEPAGE_SIZES, format_size
from .estimate import PoolEstimate
from .host_tree import HostTree
from .layout import frames_freed, vmemmap_pages

__all__ = ["COUNTS", "HUGEPAGES", "HostPool", "default_pool", "page_size_of", "pool_sizes", "read_pools"]

HUGEPAGES: Final = "sys/kernel/mm/hugepages"
COUNTS: Final = ("nr_hugepages", "free_hugepages", "resv_hugepages", "surplus_hugepages")
_POOL: Final = r"hugepages-([1-9][0-9]{0,11})kB"
_NODES: Final = "sys/devices/system/node"
_PMD_SIZE: Final = {2 << 20: 4096, 32 << 20: 16384, 512 << 20: 65536}
"""Bytes that a PMD maps on arm64 → base page size. Also the default hugepage size (``HPAGE_SIZE``) of that granule."""
_MEMINFO: Final = {
    "nr_hugepages": "HugePages_Total",
    "free_hugepages": "HugePages_Free",
    "resv_hugepages": "HugePages_Rsvd",
    "surplus_hugepages": "HugePages_Surp",
}
"""Counter of a pool → the line of ``/proc/meminfo`` that has it for the default size."""


@dataclass(frozen=True, slots=True)
class HostPool:
    """The pool of one hugepage size."""

    estimate: PoolEstimate
    """Savings if all its pages were optimised."""
    counters: Mapping[str, int | None]
    """Files of ``hugepages-*kB`` → value; ``None`` if it could not be read."""
    nodes: Mapping[int, Mapping[str, int | None]]
    """NUMA node → the same for that node."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON. What needs the page size is ``None`` without it.

        Returns:
            The object that ``--json`` prints for a pool.
        """
        saved = self.estimate.to_dict()
        if not self.estimate.granule:
            saved = {key: value if key in ("size", "name", "count", "memory") else None for key, value in saved.items()}
        return {**saved, **self.counters, "nodes": {str(node): dict(found) for node, found in self.nodes.items()}}


def pool_sizes(tree: HostTree) -> list[int]:
    """Bytes of each hugepage size that ``/sys`` shows, smallest first; of the nodes' directories where the common one
    is missing.

    Args:
        tree: Files of the host.

    Returns:
        Sizes in bytes.
    """
    names = tree.names(HUGEPAGES, _POOL)
    if not names and not tree.has(HUGEPAGES):
        nodes = tree.names(_NODES, r"node([0-9]{1,6})")
        names = [name for node in nodes for name in tree.names(f"{_NODES}/{node[0]}/hugepages", _POOL)]
    return sorted({int(name[1]) << 10 for name in names})


def default_pool(meminfo: Mapping[str, int] | None) -> tuple[int, dict[str, int | None]] | None:
    """The default size in bytes and the counters of its pool, as ``/proc/meminfo`` has them.

    Args:
        meminfo: Line of ``/proc/meminfo`` → value, sizes in KiB; ``None`` if it could not be read.

    Returns:
        Size and counters; ``None`` if the file does not have them.
    """
    if meminfo is None or "HugePages_Total" not in meminfo or not meminfo.get("Hugepagesize"):
        return None
    return meminfo["Hugepagesize"] << 10, {name: meminfo.get(line) for name, line in _MEMINFO.items()}


def page_size_of(
    tree: HostTree,
    machine: str | None,
    release: str | None,
    hugepages: list[int],
    default: int | None,
    command_line: tuple[str, ...],
    config: Mapping[str, str] | None,
) -> tuple[int | None, str]:
    """Bytes of a base page, and what told.

    Args:
        tree: Files of the host.
        machine: As ``uname -m`` says it; ``None`` if not known.
        release: Kernel release; ``None`` if not known.
        hugepages: Hugepage sizes in bytes that the host shows.
        default: Default hugepage size in bytes; ``None`` if not known.
        command_line: Parameters of the kernel.
        config: Kernel configuration, symbol → value; ``None`` if not known.

    Returns:
        Bytes, or ``None`` if nothing tells; and the name of what told.
    """
    if tree.live:
        return os.sysconf("SC_PAGE_SIZE"), "sysconf"
    for path in ("proc/self/smaps", "proc/1/smaps"):
        found = re.findall(r"^KernelPageSize:\s+([0-9]{1,6}) kB$", tree.text(path, optional=True) or "", re.MULTILINE)
        if found and (size := min(map(int, found)) << 10) >= 4096 and not size & (size - 1):
            return size, f"/{path}"
    if machine == "x86_64":
        return 4096, "x86_64"
    if machine != "aarch64":
        return None, "no file"
    for size in HUGEPAGE_SIZES:
        if (config or {}).get(f"CONFIG_ARM64_{size >> 10}K_PAGES") == "y":
            return size, "kernel configuration"
    pmd = tree.number("sys/kernel/mm/transparent_hugepage/hpage_pmd_size", optional=True)
    if pmd in _PMD_SIZE:
        return _PMD_SIZE[pmd], "hpage_pmd_size"
    shown = {*hugepages, *([default] if default else [])}
    # The sets of sizes that each granule registers are subsets of none of the others. Kernels before 5.7 registered
    # the PMD's size
    # only, 2M with 64K pages, and what the command line asked for.
    fitting = [size for size, sizes in HUGEPAGE_SIZES.items() if shown and set(sizes) == shown]
    fitting = fitting or [size for size, sizes in HUGEPAGE_SIZES.items() if shown and set(sizes) >= shown]
    if len(fitting) == 1:
        return fitting[0], "hugepage sizes"
    chosen = any(word.startswith("default_hugepagesz=") for word in command_line)
    if default in _PMD_SIZE and not chosen and _PMD_SIZE[default] in fitting:
        return _PMD_SIZE[default], "default hugepage size"
    if release is not None and re.search(r"[-+]64kb?\b", release):
        return 65536, "kernel release"
    if release is not None and re.search(r"[-+]16kb?\b", release):
        return 16384, "kernel release"
    return None, "no file"


def read_pools(
    tree: HostTree, sizes: list[int], page: int | None, reserved: int, default: tuple[int, dict[str, int | None]] | None
) -> list[HostPool]:
    """A pool for each size; that of the default size by `default` where ``/sys`` does not show it.

    Args:
        tree: Files of the host.
        sizes: Hugepage sizes in bytes.
        page: Bytes of a base page; ``None`` if not known.
        reserved: vmemmap pages that HVO keeps of each hugepage.
        default: What `default_pool` found.

    Returns:
        The pools, in the order of `sizes`; what is no hugepage size with pages of `page` is left out.
    """
    pools: list[HostPool] = []
    nodes = [int(name[1]) for name in tree.names(_NODES, r"node([0-9]{1,6})")]
    for size in sizes:
        name = f"hugepages-{size >> 10}kB"
        if page is not None and (size <= page or size % page):
            tree.failed(f"{HUGEPAGES}/{name}", f"is no hugepage size with {format_size(page)} pages")
            continue
        counters = _counters(tree, name, size, default)
        demote = tree.text(f"{HUGEPAGES}/{name}/demote_size", optional=True)
        smaller = re.fullmatch(r"([0-9]{1,12})kB", (demote or "").strip())
        counters["demote_size"] = None if smaller is None else int(smaller[1]) << 10
        # Without a page size the arithmetic has nothing to work on: no vmemmap pages, nothing freed.
        estimate = PoolEstimate(
            size=size,
            count=counters["nr_hugepages"] or 0,
            vmemmap_pages_each=0 if page is None else vmemmap_pages(page, size),
            frames_freed_each=0 if page is None else frames_freed(page, size, reserved),
            granule=page or 0,
        )
        on_nodes = {
            node: {
                file: tree.number(f"{_NODES}/node{node}/hugepages/{name}/{file}", optional=True)
                for file in COUNTS
                if file != "resv_hugepages"
            }
            for node in sorted(nodes)
            if tree.has(f"{_NODES}/node{node}/hugepages/{name}")
        }
        pools.append(HostPool(estimate, counters, on_nodes))
    return pools


def _counters(
    tree: HostTree, name: str, size: int, default: tuple[int, dict[str, int | None]] | None
) -> dict[str, int | None]:
    if not tree.has(f"{HUGEPAGES}/{name}"):
        if default is not None and default[0] == size:
            return {**default[1], "nr_overcommit_hugepages": None}
        nodes = [f"{_NODES}/{node[0]}/hugepages/{name}" for node in tree.names(_NODES, r"node([0-9]{1,6})")]
        counts = {
            file: [tree.number(f"{node}/{file}", optional=True) for node in nodes if tree.has(node)] for file in COUNTS
        }
        sums = {
            file: sum(n for n in found if n is not None) if any(n is not None for n in found) else None
            for file, found in counts.items()
        }
        return {**sums, "nr_overcommit_hugepages": None}
    # A must-gather tells how many there are, and no more.
    collected = not tree.has(f"{HUGEPAGES}/{name}/free_hugepages") and not (tree.root / HUGEPAGES / name).is_dir()
    return {
        file: tree.number(f"{HUGEPAGES}/{name}/{file}", optional=collected)
        for file in (*COUNTS, "nr_overcommit_hugepages")
    }
