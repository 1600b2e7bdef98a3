"""What a scenario function is given: a machine to describe, and the words for what its actors do.

A setup has the vocabulary of `vmemmap.Machine`, but nothing happens: each call returns an operation, to be given to
`Setup.setup` or to an actor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from .. import _core
from ..errors import SpecError
from ..spec import HUGEPAGE_SIZES, check_machine, check_policy, format_size, parse_granule, parse_kernel, parse_size
from .actor import Actor
from .description import FORMAT, ActorDocument, Description, Document, Environment, MachineDocument, Scope, Value
from .hugetlb import Pool
from .memory import Block, Memory
from .steps import Operation, Source

SECTION_SIZE = {4096: 128 << 20, 16384: 128 << 20, 65536: 512 << 20}
"""Bytes of RAM in a section (SECTION_SIZE_BITS = 27, 27, 29)."""

STRUCT_PAGE = 64
MEMORY_MODEL = "sequentially consistent words + per-CPU TLBs"
DRAM = 0x40000000
"""Where RAM starts on the machines described here, as on the captured ones."""

KINDS = {
    "hugetlb": "HugeTLB",
    "memory_add": "hot add",
    "memory_online": "online",
    "memory_offline": "offline",
    "memory_remove": "hot remove",
    "memory_offline_and_remove": "hot remove",
    "device_": "ZONE_DEVICE",
    "ptdump": "ptdump",
    "pfn_walk": "PFN walkers",
    "pfn_valid": "PFN walkers",
    "kmemleak_scan": "PFN walkers",
    "speculative_ref": "speculative references",
    "guarded_ref": "speculative references",
    "subpool": "HugeTLB",
    "alloc_contig": "HugeTLB",
    "memory_failure": "memory failure",
    "get_huge_page_for_hwpoison": "memory failure",
    "page_handle_poison": "memory failure",
    "cpu_online": "CPU hotplug",
    "show_pte": "show_pte",
    "nr_pagetable": "meminfo",
    "page_ext_get": "page_ext",
    "offline_page_ext": "page_ext",
    "kasan": "KASAN shadow",
    "isolate_or_dissolve": "HugeTLB",
    "stable_page_flags": "PFN walkers",
    "scan_movable_pages": "PFN walkers",
    "set_memory_valid": "linear map attributes",
    "linear_map_split": "linear map attributes",
    "collapse_pmd_page": "linear map attributes",
    "vmalloc": "vmalloc",
    "iommu": "IOMMU",
}
"""Operation name (or its beginning) → the kind of actor that does it, for the list of those absent."""


def kinds(operations: Iterable[str]) -> set[str]:
    """The kinds of actor that do these operations, by name.

    Args:
        operations: Names of operations.

    Returns:
        Their kinds, as `KINDS` names them.
    """
    names = set(operations)
    found = {kind for name in names for prefix, kind in KINDS.items() if name.startswith(prefix)}
    return found | {"HugeTLB"} if "nr_hugepages" in names else found


@dataclass
class Setup:
    """See the module documentation. `configure` first; its defaults are a 4K machine with room for hot add."""

    kernel: str = "6.1"
    policies: Mapping[str, str] = field(default_factory=dict[str, str])
    environment: Environment = field(default_factory=dict[str, Value])
    granule: int = field(init=False, default=4096)
    hotplug: list[tuple[int, int]] = field(init=False, default_factory=list[tuple[int, int]])
    memory: Memory = field(init=False)
    hugetlb: dict[str, Pool] = field(init=False)
    _machine: MachineDocument = field(init=False)
    _setup: list[Operation] = field(init=False, default_factory=list[Operation])
    _scope: dict[str, str] = field(init=False, default_factory=dict[str, str])

    def __post_init__(self) -> None:
        known = _core.policies()
        for name, value in self.policies.items():
            check_policy(name, value, known)
        self.configure()

    def configure(
        self,
        *,
        granule: int | str = "4K",
        va_bits: int = 48,
        boot_memory: int | str | None = None,
        hotplug: Sequence[tuple[int, int | str]] | None = None,
        hvo: bool = True,
        memstart: int | None = None,
        image: str | None = None,
    ) -> None:
        """The machine. `hotplug` lists (physical address, size) of the regions where memory may be hot-added.

        Defaults: one section of boot memory at 0x40000000, and after it a region of eight sections for hot add.

        Args:
            granule: Bytes of a base page, or text: ``4K``, ``16K``, ``64K``.
            va_bits: Bits of a kernel virtual address.
            boot_memory: Bytes or text; one section by default.
            hotplug: (physical address, size) of each region where memory may be hot-added.
            hvo: ``hugetlb_free_vmemmap``, at boot and as sysctl.
            memstart: ``memstart_addr``; None: start of RAM aligned down, as without KASLR.
            image: Path of a table image to start from.

        Raises:
            SpecError: A machine that no such kernel had.
        """
        self.granule = parse_granule(granule)
        check_machine(self.granule, va_bits, parse_kernel(self.kernel))
        boot = parse_size(boot_memory, "boot_memory") if boot_memory is not None else self.section
        regions = hotplug if hotplug is not None else [(DRAM + boot, 8 * self.section)]
        self.hotplug = [(start, parse_size(size, "hotplug size")) for start, size in regions]
        self.memory = Memory(self.section, self.hotplug)
        self.hugetlb = {format_size(size): Pool(index, size) for index, size in enumerate(HUGEPAGE_SIZES[self.granule])}
        self._machine = {
            "granule": self.granule,
            "va_bits": va_bits,
            "kernel": self.kernel,
            "hvo": hvo,
            "memstart": memstart,
            "boot": [] if image else [[DRAM, boot]],
            "hotplug": [list(region) for region in self.hotplug],
            "image": image,
            "policies": dict(self.policies),
        }

    @property
    def section(self) -> int:
        """Bytes of a section, which is also a memory block."""
        return SECTION_SIZE[self.granule]

    @property
    def pmd_hugepage(self) -> Pool:
        """The PMD-sized pool, whose pages own eight vmemmap pages whatever the granule."""
        return list(self.hugetlb.values())[1]

    def pfn(self, address: int) -> int:
        """Page frame number of a physical address.

        Args:
            address: Physical address, in bytes.

        Returns:
            The PFN.
        """
        return address // self.granule

    def setup(self, *operations: Operation) -> None:
        """Operations that run before any actor starts.

        Args:
            *operations: In order; an error of one is an error of the scenario.
        """
        self._setup += operations

    def scope(self, **parts: str) -> None:
        """Words that bound the verdict, such as `window`: what else lives in the table's window.

        Args:
            **parts: Words by key.
        """
        self._scope.update(parts)

    def ptdump(self, block: Block) -> Operation:
        """`ptdump_walk_pgd` over the vmemmap of a block.

        Args:
            block: The memory block, as `Memory.add` describes it.

        Returns:
            The operation.
        """
        return Operation("ptdump_walk", {"pfns": self._pfns(block)})

    def ptdump_check_wx(self) -> Operation:
        """`ptdump_check_wx`: the whole kernel address space.

        Kernel: ``arch/arm64/mm/ptdump.c``.

        Returns:
            The operation.
        """
        return Operation("ptdump_check_wx")

    def pfn_walk(self, start: int, end: int, step: int = 1) -> Operation:
        """A lockless walker looks at every `step`-th struct page of [start, end).

        Args:
            start: First PFN.
            end: One past the last PFN.
            step: PFNs from one to the next.

        Returns:
            The operation.
        """
        return Operation("pfn_walk", {"start": start, "end": end, "step": step})

    def tail_walk(self, block: Block, pages: int = 1) -> Operation:
        """A PFN walker that looks at one struct page in each of the first `pages` tail vmemmap pages of a hugepage at
        the start of `block`, those that every kernel rewrites, from the last on 2021's list backwards.

        Args:
            block: The memory block, as `Memory.add` describes it.
            pages: Of its tail vmemmap pages, how many are looked at.

        Returns:
            The operation.
        """
        per_page = self.granule // STRUCT_PAGE
        last = self.pfn(block.start) + 8 * per_page
        return self.pfn_walk(last - pages * per_page, last, per_page)

    def speculative_ref(self, pfn: int) -> Operation:
        """`get_page_unless_zero` on a page that the caller does not hold: a speculative reference.

        Kernel: ``include/linux/page_ref.h``.

        Args:
            pfn: Page frame number: physical address divided by the granule.

        Returns:
            The operation.
        """
        return Operation("speculative_ref", {"pfn": pfn})

    def guarded_ref(self, pfn: int, guard: Literal["irqs-off", "gup-fast", "list-lock"]) -> Operation:
        """The same by a reader that keeps others away meanwhile.

        Args:
            pfn: Page frame number: physical address divided by the granule.
            guard: Interrupts off while it is taken; off from before the page is found in the user's page table, as in
                GUP-fast; or the lock under which pages leave the list that the reader found the page on, as in LRU
                isolation.

        Returns:
            The operation.
        """
        return Operation("guarded_ref", {"pfn": pfn, "guard": guard})

    def pfn_valid(self, pfn: int, *, access: bool = False) -> Operation:
        """`pfn_valid` by a caller that holds nothing; with `access` it then reads the struct page.

        Kernel: ``include/linux/mmzone.h``.

        Args:
            pfn: Page frame number: physical address divided by the granule.
            access: Read the struct page afterwards.

        Returns:
            The operation.
        """
        return Operation("pfn_valid", {"pfn": pfn, "access": access})

    def kmemleak_scan(self, start: int, end: int, step: int = 1) -> Operation:
        """`pfn_to_online_page` and the page's count for every `step`-th page of [start, end), under `get_online_mems`.

        Kernel: ``mm/kmemleak.c``.

        Args:
            start: First PFN.
            end: One past the last PFN.
            step: PFNs from one to the next.

        Returns:
            The operation.
        """
        return Operation("kmemleak_scan", {"start": start, "end": end, "step": step})

    def kfree_rcu_work(self, block: Block) -> Operation:
        """The worker that frees what the removal of `block` hands to `kfree_rcu`, after a grace period.

        Args:
            block: The memory block, as `Memory.add` describes it.

        Returns:
            The operation.
        """
        return Operation("kfree_rcu_work", {"start": block.start})

    def dissolve(self, pfn: int) -> Operation:
        """`dissolve_free_huge_page` of the free hugepage that `pfn` belongs to, as memory failure does.

        Kernel: ``mm/hugetlb.c``.

        Args:
            pfn: Page frame number: physical address divided by the granule.

        Returns:
            The operation.
        """
        return Operation("hugetlb_dissolve", {"at": pfn})

    def set_hvo(self, on: bool) -> Operation:
        """``vm.hugetlb_optimize_vmemmap``, for pages to come.

        Args:
            on: Optimise new hugepages.

        Returns:
            The operation.
        """
        return Operation("set_hvo", {"on": on})

    def deferred_free(self) -> Operation:
        """The worker that frees what atomic context could not (`free_hpage_workfn`).

        Kernel: ``mm/hugetlb.c``.

        Returns:
            The operation.
        """
        return Operation("hugetlb_deferred_free")

    def memory_failure(self, pfn: int) -> Operation:
        """`memory_failure`: an uncorrected error in the page `pfn`.

        Kernel: ``mm/memory-failure.c``.

        Args:
            pfn: Page frame number: physical address divided by the granule.

        Returns:
            The operation.
        """
        return Operation("memory_failure", {"pfn": pfn})

    def get_huge_page_for_hwpoison(self, pfn: int) -> Operation:
        """Memory failure takes a reference to the HugeTLB page in use that `pfn` belongs to, and marks it.

        Kernel: ``mm/memory-failure.c``.

        Args:
            pfn: Page frame number: physical address divided by the granule.

        Returns:
            The operation.
        """
        return Operation("get_huge_page_for_hwpoison", {"pfn": pfn})

    def alloc_contig(self, head: int) -> Operation:
        """`alloc_contig_range` over the memory of a hugepage, which is migrated or replaced.

        Kernel: ``mm/page_alloc.c``.

        Args:
            head: PFN of the hugepage's head.

        Returns:
            The operation.
        """
        return Operation("alloc_contig", {"at": head})

    def actor_done(self) -> Operation:
        """The actor says that it is done, which `Pool.at_rest` waits for. No kernel code.

        Returns:
            The operation.
        """
        return Operation("actor_done")

    def device_add(self, start: int, size: int | str) -> Operation:
        """`memremap_pages`: a ZONE_DEVICE range of whole sub-sections (2 MiB).

        Kernel: ``mm/memremap.c``.

        Args:
            start: Physical address, in bytes.
            size: Bytes or text; whole sub-sections (2 MiB).

        Returns:
            The operation.
        """
        return Operation("device_add", {"start": start, "bytes": parse_size(size, "size")})

    def device_remove(self, start: int, size: int | str) -> Operation:
        """`memunmap_pages`.

        Kernel: ``mm/memremap.c``.

        Args:
            start: Physical address, in bytes.
            size: Bytes or text; whole sub-sections (2 MiB).

        Returns:
            The operation.
        """
        return Operation("device_remove", {"start": start, "bytes": parse_size(size, "size")})

    def device_use(self, pfn: int) -> Operation:
        """Whoever uses device memory looks at one of its struct pages.

        Args:
            pfn: Page frame number: physical address divided by the granule.

        Returns:
            The operation.
        """
        return Operation("device_use", {"pfn": pfn})

    def vmalloc_and_keep(self, pages: int) -> Operation:
        """`vmalloc`, and no `vfree`.

        Args:
            pages: Base pages.

        Returns:
            The operation.
        """
        return Operation("vmalloc_and_keep", {"pages": pages})

    def page_handle_poison(self, pfn: int) -> Operation:
        """The end of a hard offline: dissolve the free hugepage at `pfn`, keep it out of the per-CPU lists.

        Kernel: ``mm/memory-failure.c``.

        Args:
            pfn: Page frame number: physical address divided by the granule.

        Returns:
            The operation.
        """
        return Operation("page_handle_poison", {"pfn": pfn})

    def cpu_online(self) -> Operation:
        """A CPU comes online, as far as it takes locks of memory management.

        Returns:
            The operation.
        """
        return Operation("cpu_online")

    def speculate(self, block: Block) -> Operation:
        """A walk that a CPU makes by itself for the first struct page of a block; it fills TLBs and never faults.

        Args:
            block: The memory block, as `Memory.add` describes it.

        Returns:
            The operation.
        """
        return Operation("speculate", {"pfn": self.pfn(block.start)})

    def iommu_walk(self, block: Block) -> Operation:
        """The same, by an IOMMU that shares the kernel's tables; nothing unless the environment has one.

        Args:
            block: The memory block, as `Memory.add` describes it.

        Returns:
            The operation.
        """
        return Operation("iommu_walk", {"pfn": self.pfn(block.start)})

    def vmalloc(self, pages: int) -> Operation:
        """`vmalloc`, then `vfree`.

        Kernel: ``mm/vmalloc.c``.

        Args:
            pages: Base pages.

        Returns:
            The operation.
        """
        return Operation("vmalloc_cycle", {"pages": pages})

    def _pfns(self, block: Block) -> dict[str, int]:
        return {"start": self.pfn(block.start), "end": self.pfn(block.start + block.bytes)}

    def describe(
        self, name: str, corpus: str | None, judged: Sequence[str], variant: str, actors: Sequence[Actor]
    ) -> Description:
        """The finished description. Called by `Scenario.set_up`.

        Args:
            name: Name of the scenario.
            corpus: Its corpus number, if it has one.
            judged: The invariants that the verdict is about.
            variant: Name of the variant.
            actors: Who does what.

        Returns:
            What the core is given.

        Raises:
            SpecError: There are no actors.
        """
        programs = [(actor, actor.program()) for actor in actors]
        sources = [actor.source() if program is None else None for actor, program in programs]
        if not programs:
            raise SpecError(f"{name}: no actors")
        document: Document = {
            "format": FORMAT,
            "name": name,
            "corpus": corpus,
            "variant": variant,
            "machine": self._machine,
            "setup": [operation.to_dict() for operation in self._setup],
            "actors": [
                _actor(index, actor, program, source)
                for index, ((actor, program), source) in enumerate(zip(programs, sources, strict=True))
            ],
            "judged": list(judged),
            "environment": dict(self.environment),
        }
        seen = kinds(operation.name for _, program in programs for operation in program or ())
        scope: dict[str, object] = {
            "memory_model": MEMORY_MODEL,
            "granule": format_size(self.granule),
            "entries_per_table": self.granule // 8,
            "rounds": {actor.name: actor.rounds for actor, _ in programs},
            "actors": [actor.name for actor, _ in programs],
            "absent": sorted(set(KINDS.values()) - seen),
            "window": self._scope.get("window", ""),
            "environment": ", ".join(f"{key} {value}" for key, value in self.environment.items()),
            **{key: text for key, text in self._scope.items() if key != "window"},
        }
        return Description(document, cast("Scope", scope), sources)


def _actor(index: int, actor: Actor, program: list[Operation] | None, source: Source | None) -> ActorDocument:
    entry: ActorDocument = {
        "name": actor.name,
        "cpu": index if actor.cpu is None else actor.cpu,
        "rounds": actor.rounds,
        "context": actor.context,
        "program": None if program is None else [operation.to_dict() for operation in program],
    }
    return {**entry, "steps": source.to_dict()} if source else entry
