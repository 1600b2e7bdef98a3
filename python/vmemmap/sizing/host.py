"""What a Linux host has: hugepage pools, HVO, memory blocks, page size; and what HVO saves or would save on it.

Reads only, as far as it is allowed to. ``struct page`` is taken to be 64 bytes, which no file tells. Arithmetic as in
``vmemmap.sizing.estimate``, on any architecture.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ..spec import format_size, parse_size
from .boot_parameters import Asked, Ignored, read_parameters, why_less
from .estimate import human_size
from .host_pools import COUNTS, HUGEPAGES, HostPool, default_pool, page_size_of, pool_sizes, read_pools
from .host_tree import HostTree
from .layout import STRUCT_PAGE

__all__ = ["Host", "HostPool", "HugepageOptimisation", "MemoryBlocks", "host"]

_SYSCTL: Final = "proc/sys/vm/hugetlb_optimize_vmemmap"
_BLOCKS: Final = "sys/devices/system/memory"
_SWITCHES: Final = (
    "hugetlb_free_vmemmap",
    "hugepages",
    "hugepagesz",
    "default_hugepagesz",
    "hugetlb_cma",
    "memory_hotplug.memmap_on_memory",
    "page_owner",
    "rodata",
)
_CONFIG: Final = (
    "CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP",
    "CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP_DEFAULT_ON",
    "CONFIG_HUGETLB_PAGE_FREE_VMEMMAP",
    "CONFIG_HUGETLB_PAGE_FREE_VMEMMAP_DEFAULT_ON",
    "CONFIG_ARCH_WANT_OPTIMIZE_HUGETLB_VMEMMAP",
    "CONFIG_ARCH_WANT_HUGETLB_PAGE_OPTIMIZE_VMEMMAP",
)
"""The option and what selects it, by the names of the last years (``fs/Kconfig``, ``mm/Kconfig``)."""
_GRANULES: Final = ("CONFIG_ARM64_4K_PAGES", "CONFIG_ARM64_16K_PAGES", "CONFIG_ARM64_64K_PAGES")

ARCHITECTURES: Final = {
    "x86_64": "x86_64 has had it since Linux 5.14",
    "aarch64": "arm64 selected it in commit 1e63ac088f20 and dropped it in 060a2c92d1b6 (early 2023) "
    "for break-before-make; stable and vendor kernels vary",
    "riscv64": "riscv selects it in Linux 6.12",
    "loongarch64": "loongarch selects it in Linux 6.12",
    "s390x": 's390 dropped it again in "s390: Disable ARCH_WANT_OPTIMIZE_HUGETLB_VMEMMAP" (2025)',
}
"""Machine as ``uname`` names it → what is known of HVO there. What the host itself shows comes first."""

_SECTIONS: Final = {
    ("x86_64", 4096): 128 << 20,
    ("aarch64", 4096): 128 << 20,
    ("aarch64", 16384): 128 << 20,
    ("aarch64", 65536): 512 << 20,
}
"""Machine and page size → bytes of a section (``SECTION_SIZE_BITS``)."""


@dataclass(frozen=True, slots=True)
class HugepageOptimisation:
    """What is known of HVO on the host."""

    available: bool | None
    """The kernel can optimise hugepages; ``None`` if that is not known."""
    why: str
    """What says so."""
    on: bool | None
    """Pages that are allocated now are optimised. Others stay as they are."""
    sysctl: int | None
    boot_parameter: str | None
    config: Mapping[str, str] | None
    """Kernel options that concern it → value; ``None`` if the configuration could not be read."""
    reserved: int
    """vmemmap pages kept for each hugepage: 1, or 2 by a kernel before 5.18 that has it."""

    def to_dict(self) -> dict[str, object]:
        """For JSON.

        Returns:
            The object that ``--json`` prints.
        """
        return {
            "available": self.available,
            "why": self.why,
            "on": self.on,
            "sysctl": self.sysctl,
            "boot_parameter": self.boot_parameter,
            "config": None if self.config is None else dict(self.config),
            "reserved": self.reserved,
        }


@dataclass(frozen=True, slots=True)
class MemoryBlocks:
    """Memory block devices (``/sys/devices/system/memory``)."""

    block_size: int | None
    states: Mapping[str, int]
    """State → number of blocks; ``unknown`` if the file could not be read."""
    removable: int
    """Blocks whose file ``removable`` says 1: since Linux 5.7 this tells that the kernel has memory hot remove,
    no more.
    """
    auto_online: str | None
    memmap_on_memory: str | None

    @property
    def number(self) -> int:
        """Blocks in all."""
        return sum(self.states.values())

    def to_dict(self) -> dict[str, object]:
        """For JSON.

        Returns:
            The object that ``--json`` prints.
        """
        return {
            "block_size": self.block_size,
            "blocks": self.number,
            "states": dict(self.states),
            "removable": self.removable,
            "auto_online_blocks": self.auto_online,
            "memmap_on_memory": self.memmap_on_memory,
        }


@dataclass(frozen=True, slots=True)
class Host:
    """What was read of a host and what follows; sizes in bytes."""

    root: str
    machine: str | None
    release: str | None
    page_size: int | None
    page_size_from: str
    memory: int | None
    """``MemTotal``."""
    hvo: HugepageOptimisation
    pools: tuple[HostPool, ...]
    command_line: tuple[str, ...] | None
    blocks: MemoryBlocks
    memmap_pages: int | None
    """``nr_memmap_pages``: struct pages and page_ext allocated after boot. Linux 6.12 and later."""
    memmap_boot_pages: int | None
    """``nr_memmap_boot_pages``: the same allocated at boot."""
    memmap_least: int | None
    """vmemmap pages that the memory of the host has at least, if nothing is optimised."""
    default_only: bool = False
    """Only the pool of the default size is known, from ``/proc/meminfo``."""
    other_pools: int | None = None
    """Bytes in pools of other sizes, where that is all that is known of them."""
    asked: tuple[tuple[int, int, int | None, str], ...] = ()
    """Pools that are smaller than the command line asks for: size, pages asked for, pages there, why."""
    ignored: tuple[Ignored, ...] = ()
    """Parameters of the command line without effect."""
    unread: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def frames_all(self) -> int:
        """Frames freed if every hugepage there is were optimised."""
        return sum(pool.estimate.frames_freed for pool in self.pools)

    @property
    def bytes_all(self) -> int:
        """The same in bytes."""
        return self.frames_all * (self.page_size or 0)

    @property
    def frames_saved_least(self) -> int:
        """Frames that HVO has freed, at least: vmemmap pages that the kernel does not count, though the memory needs
        them.

        page_ext, device memory and DAX count too and hide as many, so it is a lower bound. Nothing is concluded where
        descriptors may lie in the memory itself (memmap_on_memory).
        """
        if (
            self.hvo.available is False
            or self.memmap_least is None
            or self.memmap_pages is None
            or self.memmap_boot_pages is None
        ):
            return 0
        if self.blocks.memmap_on_memory not in (None, "N", "n", "0"):
            return 0
        return min(self.frames_all, max(0, self.memmap_least - self.memmap_pages - self.memmap_boot_pages))

    @property
    def frames_saved_most(self) -> int:
        """Frames that HVO can have freed: all, unless the kernel has no HVO. Also with the sysctl at 0: it leaves pages
        that were optimised before as they are.
        """
        # Before the sysctl came, in 5.19, only the boot parameter switched it on.
        never = self.hvo.available is False or (self.hvo.on is False and self.hvo.sysctl is None)
        return 0 if never else self.frames_all

    def to_dict(self) -> dict[str, object]:
        """For JSON.

        Returns:
            The object that ``--json`` prints.
        """
        page = self.page_size or 0
        return {
            "root": self.root,
            "machine": self.machine,
            "kernel_release": self.release,
            "page_size": self.page_size,
            "page_size_from": self.page_size_from,
            "struct_page_size": STRUCT_PAGE,
            "memory": self.memory,
            "hvo": self.hvo.to_dict(),
            "pools": [pool.to_dict() for pool in self.pools],
            "frames_if_all_optimised": self.frames_all,
            "bytes_if_all_optimised": self.bytes_all,
            "percent_of_memory": 100 * self.bytes_all / self.memory if self.memory else None,
            "saved": {
                "frames_least": self.frames_saved_least,
                "frames_most": self.frames_saved_most,
                "bytes_least": self.frames_saved_least * page,
                "bytes_most": self.frames_saved_most * page,
            },
            "to_gain": {
                "bytes_least": (self.frames_all - self.frames_saved_most) * page,
                "bytes_most": (self.frames_all - self.frames_saved_least) * page,
            },
            "memmap": {
                "nr_memmap_pages": self.memmap_pages,
                "nr_memmap_boot_pages": self.memmap_boot_pages,
                "pages_needed_least": self.memmap_least,
            },
            "memory_blocks": self.blocks.to_dict(),
            "default_size_only": self.default_only,
            "bytes_in_other_pools": self.other_pools,
            "smaller_than_asked": [
                {"size": size, "asked": wanted, "got": got, "why": why} for size, wanted, got, why in self.asked
            ],
            "ignored_parameters": [{"parameter": each.parameter, "why": each.why} for each in self.ignored],
            "command_line": None if self.command_line is None else list(self.command_line),
            "could_not_read": [{"path": path, "reason": reason} for path, reason in self.unread.items()],
            "not_known": self.not_known(),
        }

    def not_known(self) -> list[str]:
        """What no file tells, in words.

        Returns:
            Lines, one for each thing.
        """
        known = [f"sizeof(struct page): {STRUCT_PAGE} bytes are assumed"]
        if self.page_size is None:
            known.append("the page size, hence everything about savings: --page-size gives it")
        if self.frames_all and self.frames_saved_least != self.frames_saved_most:
            known.append("which hugepages are optimised: vm.hugetlb_optimize_vmemmap tells of pages to come only")
        if self.default_only:
            other = (
                "" if not self.other_pools else f"; they hold {human_size(self.other_pools)} (Hugetlb in /proc/meminfo)"
            )
            known.append(f"pools of other sizes than the default: /proc/meminfo tells of no others{other}")
        if self.memmap_pages is None or self.memmap_boot_pages is None:
            known.append(
                "how many vmemmap pages are allocated: nr_memmap_pages and nr_memmap_boot_pages came with Linux 6.12"
            )
        if self.blocks.memmap_on_memory not in (None, "N", "n", "0"):
            known.append(
                "which memory blocks hold their own struct pages (memmap_on_memory): HVO leaves hugepages there alone"
            )
        return known

    def text(self) -> str:
        """For people.

        Returns:
            Lines for people, without a newline at the end.
        """
        page = (
            "page size not known"
            if self.page_size is None
            else f"{format_size(self.page_size)} pages ({self.page_size_from})"
        )
        memory = "memory not known" if self.memory is None else f"{human_size(self.memory)} of memory"
        lines = [
            f"Linux {self.release or '(release not known)'}, {self.machine or 'machine not known'}, {page}, {memory}",
            "",
        ]
        state = {True: "in this kernel", False: "not in this kernel", None: "not known"}[self.hvo.available]
        switch = (
            {True: ", on", False: ", off", None: ", on or off is not known"}[self.hvo.on]
            if self.hvo.available is not False
            else ""
        )
        lines.append(f"  HVO            {state}{switch}: {self.hvo.why}")
        if self.machine in ARCHITECTURES:
            lines.append(f"                 {ARCHITECTURES[self.machine]}")
        lines += ["", *self._pool_lines(), ""]
        if self.memmap_pages is not None and self.memmap_boot_pages is not None:
            total = self.memmap_pages + self.memmap_boot_pages
            size = "" if self.page_size is None else f", {human_size(total * self.page_size)}"
            needed = "" if self.memmap_least is None else f"; without HVO at least {self.memmap_least}"
            lines.append(f"  vmemmap pages  {total} allocated, {self.memmap_boot_pages} of them at boot{size}{needed}")
        lines.append(f"  memory blocks  {self._block_text()}")
        if self.command_line:
            lines.append(f"  command line   {' '.join(self.command_line)}")
        shortfalls = [
            f"{format_size(size)}: {wanted} asked for, {_or_unknown(got)} there: {why}"
            for size, wanted, got, why in self.asked
        ]
        for title, rows in (
            ("ignored", [f"{each.parameter}: {each.why}" for each in self.ignored]),
            ("smaller pools", shortfalls),
        ):
            lines += [f"  {title if not i else '':<14} {row}" for i, row in enumerate(rows)]
        for title, rows in (
            ("could not read", [f"{path}: {reason}" for path, reason in self.unread.items()]),
            ("not known", self.not_known()),
        ):
            lines += [f"  {title if not i else '':<14} {row}" for i, row in enumerate(rows)]
        return "\n".join(lines)

    def _pool_lines(self) -> list[str]:
        if not self.pools and f"/{HUGEPAGES}" in self.unread:
            return ["  hugepage pools are not known"]
        if not self.pools:
            return ["  no hugepage pools: nothing for HVO to save"]
        lines = [
            "  hugepage     number       free   reserved    surplus  vmemmap pages  freed  saved if all are optimised"
        ]
        for pool in self.pools:
            each = pool.estimate
            counts = " ".join(f"{_or_unknown(pool.counters[name]):>10}" for name in COUNTS)
            saved = f"{human_size(each.bytes_saved)}, {each.percent:.3f}% of them" if each.count else "-"
            arithmetic = (
                f"{each.vmemmap_pages_each:>14g} {each.frames_freed_each:>6}  {saved}"
                if self.page_size
                else f"{'?':>14} {'?':>6}  ?"
            )
            lines.append(f"  {format_size(each.size):>8} {counts} {arithmetic}")
            if len(pool.nodes) > 1:
                for node, found in pool.nodes.items():
                    lines.append(
                        f"  node {node:<3} {_or_unknown(found['nr_hugepages']):>10} "
                        f"{_or_unknown(found['free_hugepages']):>10}"
                    )
        return [*lines, "", f"  {self._saving_text()}"]

    def _saving_text(self) -> str:
        if self.page_size is None:
            return "HVO saves      not known without the page size"
        if not self.frames_all:
            return "HVO saves      nothing: there are no hugepages of a size that it can optimise"
        everything = human_size(self.bytes_all) + (
            f", {100 * self.bytes_all / self.memory:.3f}% of memory" if self.memory else ""
        )
        if self.hvo.available is False:
            return f"HVO would save {everything}, if this kernel had it"
        if self.hvo.on is False and self.hvo.sysctl is None:
            return f"HVO saves      nothing: it is off; hugetlb_free_vmemmap=on at boot would save {everything}"
        least, most = self.frames_saved_least * self.page_size, self.frames_saved_most * self.page_size
        if least == most:
            return f"HVO saves      {everything}: all hugepages are optimised"
        return f"HVO saves      {human_size(least)} to {human_size(most)}; if all were optimised {everything}"

    def _block_text(self) -> str:
        blocks = self.blocks
        if not blocks.number:
            return "none"
        size = "" if blocks.block_size is None else f" of {format_size(blocks.block_size)}"
        states = ", ".join(f"{count} {state}" for state, count in blocks.states.items())
        settings = [("auto_online_blocks", blocks.auto_online), ("memmap_on_memory", blocks.memmap_on_memory)]
        return f"{blocks.number}{size}: {states}" + "".join(
            f"; {name} {value}" for name, value in settings if value is not None
        )


def host(root: str | os.PathLike[str] = "/", page_size: int | str | None = None) -> Host:
    """What the host has; or, with another `root`, what a copy of its ``/proc`` and ``/sys`` tells. `page_size` is bytes
    or text like ``64K``; without it, of this host what ``sysconf`` says, of a copy what the files allow to conclude.

    Args:
        root: Where ``proc`` and ``sys`` are: of this host, or of a copy.
        page_size: Bytes of a base page; None: as the host says.

    Returns:
        What it has.

    Raises:
        SpecError: `root` is no directory, or has neither ``proc`` nor ``sys``; `page_size` is no page size.
    """
    from ..errors import SpecError

    tree = HostTree(root)
    given = None if page_size is None else parse_size(page_size, "page size")
    if given is not None and (given < 4096 or given & (given - 1) or given > 1 << 20):
        raise SpecError(f"page size is {format_size(given)}: expected a power of two from 4K to 1M")
    release = _line(tree.text("proc/sys/kernel/osrelease"))
    machine = _machine(tree, release)
    words = tree.text("proc/cmdline")
    command_line = None if words is None else tuple(w for w in words.split() if w.split("=", 1)[0] in _SWITCHES)
    config = _configuration(tree, release)
    meminfo = _table(tree.text("proc/meminfo"), r"(\w+):\s+([0-9]{1,20})(?: kB)?")
    default = default_pool(meminfo)
    sizes = pool_sizes(tree)
    told = page_size_of(tree, machine, release, sizes, default[0] if default else None, command_line or (), config)
    page, source = (given, "given") if given is not None else told
    default_only = not sizes and default is not None and not tree.has(HUGEPAGES)
    if default_only and default is not None:
        sizes = [default[0]]
    if (default_only or meminfo is None) and not tree.has(HUGEPAGES):
        tree.failed(
            HUGEPAGES,
            "is not there"
            + (": only the pool of the default size is known, from /proc/meminfo" if default_only else ""),
        )
    hvo = _hvo(tree, machine, release, command_line or (), config)
    vmstat = _table(tree.text("proc/vmstat"), r"(\w+) ([0-9]{1,20})")
    blocks = _memory_blocks(tree)
    for known, path, key in ((meminfo, "proc/meminfo", "MemTotal"), (vmstat, "proc/vmstat", "nr_free_pages")):
        if known is not None and key not in known:
            tree.failed(path, f"has no {key}")
    pools = read_pools(tree, sizes, page, hvo.reserved, default)
    memory = None if meminfo is None or "MemTotal" not in meminfo else meminfo["MemTotal"] << 10
    asked = read_parameters(command_line or (), machine, page, sizes, default[0] if default else None)
    return Host(
        root=os.fspath(root),
        machine=machine,
        release=release,
        page_size=page,
        page_size_from=source,
        memory=memory,
        hvo=hvo,
        pools=tuple(pools),
        command_line=command_line,
        blocks=blocks,
        memmap_pages=(vmstat or {}).get("nr_memmap_pages"),
        memmap_boot_pages=(vmstat or {}).get("nr_memmap_boot_pages"),
        memmap_least=_memmap_least(tree, machine, page, blocks),
        default_only=default_only,
        other_pools=_other_pools(meminfo, default) if default_only else None,
        asked=_smaller(asked, pools, page, memory),
        ignored=(*asked.ignored, *_ignored_switch(hvo)),
        unread=dict(tree.unread),
    )


def _other_pools(meminfo: Mapping[str, int] | None, default: tuple[int, dict[str, int | None]] | None) -> int | None:
    """Bytes in pools of other sizes than the default: ``Hugetlb`` counts all of them, since 4.17."""
    if meminfo is None or default is None or not meminfo.get("Hugetlb"):
        return None
    return max(0, (meminfo["Hugetlb"] << 10) - default[0] * (default[1]["nr_hugepages"] or 0))


def _smaller(
    asked: Asked, pools: list[HostPool], page: int | None, memory: int | None
) -> tuple[tuple[int, int, int | None, str], ...]:
    """Pools that have fewer pages than the command line asks for."""
    there = {pool.estimate.size: pool.counters["nr_hugepages"] for pool in pools}
    found: list[tuple[int, int, int | None, str]] = []
    for size, wanted in sorted(asked.pages.items()):
        got = there.get(size)
        if got is not None and got < wanted:
            found.append((size, wanted, got, why_less(size, wanted, got, memory, page, asked)))
    return tuple(found)


def _ignored_switch(hvo: HugepageOptimisation) -> list[Ignored]:
    if hvo.boot_parameter is None or hvo.available is not False:
        return []
    return [Ignored(f"hugetlb_free_vmemmap={hvo.boot_parameter}", "this kernel has no HVO")]


def _or_unknown(number: int | None) -> str:
    return "?" if number is None else str(number)


def _line(text: str | None) -> str | None:
    return (text or "").strip().split("\n")[0][:128] or None


def _table(text: str | None, pattern: str) -> dict[str, int] | None:
    """Lines of a name and a number; others are passed over."""
    if text is None:
        return None
    return {found[1]: int(found[2]) for line in text.splitlines() if (found := re.fullmatch(pattern, line.strip()))}


def _machine(tree: HostTree, release: str | None) -> str | None:
    if tree.live:
        return os.uname().machine
    named = _line(tree.text("proc/sys/kernel/arch", optional=True))
    if named is not None:
        return named
    suffix = (release or "").rsplit(".", 1)[-1]
    if suffix in (*ARCHITECTURES, "ppc64le"):
        return suffix
    cpus = tree.text("proc/cpuinfo", optional=True) or ""
    marks = (("aarch64", r"CPU implementer\s*:"), ("x86_64", r"flags\s*:.*\blm\b"), ("riscv64", r"isa\s*:\s*rv64"))
    return next((machine for machine, mark in marks if re.search(mark, cpus)), None)


def _version(release: str | None) -> tuple[int, int] | None:
    found = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", release or "")
    return None if found is None else (int(found[1]), int(found[2]))


def _configuration(tree: HostTree, release: str | None) -> dict[str, str] | None:
    text = None
    if release is not None and "/" not in release:
        text = tree.text(f"boot/config-{release}", optional=True)
    if text is None:
        text = tree.gzip_text("proc/config.gz")
    if text is None or "CONFIG_" not in text:
        tree.unread.setdefault("/proc/config.gz", "no kernel configuration, and none in /boot")
        return None
    found = dict(re.findall(r"^(CONFIG_[A-Z0-9_]+)=(\S{1,64})$", text, re.MULTILINE))
    return {name: found.get(name, "n") for name in _CONFIG} | {name: found[name] for name in _GRANULES if name in found}


def _hvo(
    tree: HostTree,
    machine: str | None,
    release: str | None,
    command_line: tuple[str, ...],
    config: dict[str, str] | None,
) -> HugepageOptimisation:
    there = tree.has(_SYSCTL)
    sysctl = tree.number(_SYSCTL, optional=True)
    version = _version(release)
    parameter = next(
        (word.split("=", 1)[1] for word in reversed(command_line) if word.startswith("hugetlb_free_vmemmap=")), None
    )
    compiled = None if config is None else "y" in (config[_CONFIG[0]], config[_CONFIG[2]])
    if there:
        available, why = True, "vm.hugetlb_optimize_vmemmap is there, which needs a hugepage size that can be optimised"
    elif compiled is False:
        available, why = False, "the kernel configuration does not have it"
    elif compiled and (version is None or version < (5, 19) or not tree.has("proc/sys/vm/nr_hugepages")):
        # No sysctl yet, or it was not copied. The configuration outranks the version: vendors' 5.10 carry the patches.
        available, why = True, "by the kernel configuration"
    elif version is not None and version < (5, 14):
        available, why = False, "it came with Linux 5.14, and no kernel configuration says otherwise"
    elif version is not None and version < (5, 19):
        # A vendor's 5.14 may be anything, so only the configuration decides.
        available, why = None, f"a {version[0]}.{version[1]} without the sysctl can have it or not"
    elif tree.has("proc/sys/vm") and version is not None:
        available, why = False, "there is no vm.hugetlb_optimize_vmemmap"
    else:
        available, why = None, "no file tells"
    on: bool | None = None
    if sysctl is not None:
        on = bool(sysctl)
    elif available and version is not None and version >= (5, 19):
        # A sysctl that was not copied may say otherwise than the boot parameter did.
        on = None
    elif available and not there:
        default = config is not None and "y" in (config[_CONFIG[1]], config[_CONFIG[3]])
        on = default if parameter is None else parameter.lower() in ("on", "y", "yes", "1", "true")
    elif available is False:
        on = False
    return HugepageOptimisation(
        available=available,
        why=why,
        on=on,
        sysctl=sysctl,
        boot_parameter=parameter,
        config=None if config is None else {name: config[name] for name in _CONFIG},
        # Whatever the version says: the sysctl is younger than the second page's going. A kernel without HVO would have
        # today's.
        reserved=2 if available is not False and version is not None and version < (5, 18) and not there else 1,
    )


def _memory_blocks(tree: HostTree) -> MemoryBlocks:
    states: dict[str, int] = {}
    removable = 0
    for name in tree.names(_BLOCKS, r"memory([0-9]{1,12})"):
        state = _line(tree.text(f"{_BLOCKS}/{name[0]}/state")) or "unknown"
        states[state] = states.get(state, 0) + 1
        removable += _line(tree.text(f"{_BLOCKS}/{name[0]}/removable", optional=True)) == "1"
    return MemoryBlocks(
        block_size=tree.hexadecimal(f"{_BLOCKS}/block_size_bytes", optional=not states),
        states=states,
        removable=removable,
        auto_online=_line(tree.text(f"{_BLOCKS}/auto_online_blocks", optional=True)),
        memmap_on_memory=_line(tree.text("sys/module/memory_hotplug/parameters/memmap_on_memory", optional=True)),
    )


def _memmap_least(tree: HostTree, machine: str | None, page: int | None, blocks: MemoryBlocks) -> int | None:
    """vmemmap pages that the host's memory needs at least: by the pages present in its zones; exactly, by memory
    blocks, where a block is a section, whose vmemmap is populated whole.
    """
    if page is None:
        return None
    present = re.findall(r"^\s+present\s+([0-9]{1,20})$", tree.text("proc/zoneinfo", optional=True) or "", re.MULTILINE)
    known = [sum(map(int, present)) * STRUCT_PAGE // page] if present else []
    if blocks.block_size is not None and blocks.block_size == _SECTIONS.get((machine or "", page)):
        known.append(blocks.number * blocks.block_size // page * STRUCT_PAGE // page)
    return max(known, default=None)
