"""A machine: the kernel's algorithms on its tables, driven by hand. Names are the kernel's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from ..dumps.struct_page import StructPage
from ..errors import SpecError
from ..shown import html_table
from ..spec import (
    MachineSpec,
    check_machine,
    check_policy,
    did_you_mean,
    parse_granule,
    parse_kernel,
    parse_size,
    parse_switch,
    parse_va_bits,
    section_size,
)
from .hugetlb import HugeTLBPools
from .memory import Memory
from .operations import run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .. import _core
    from ..dumps.image_json import Description

__all__ = ["Counters", "Machine", "Tables", "TablesCopy", "Translation", "Violation"]

StrPath: TypeAlias = "str | os.PathLike[str]"

DRAM: Final = 0x4000_0000
"""Where boot memory starts, as on the captured machines."""


@dataclass(frozen=True, slots=True)
class Translation:
    """Where the walk of one address ended."""

    level: int
    """Arm level of the last descriptor read: 3 holds pages, 2 and 1 can hold blocks."""
    descriptor: int
    """That descriptor; 0 if nothing is mapped."""
    frame: int | None
    """PFN of the base page that the address translates to; ``None`` if it does not translate."""
    permissions: str
    """``RW`` or ``RO``, and ``X`` or ``NX`` for EL1: ``RW NX``. Empty if it does not translate."""
    physical: int | None = None
    """Physical address; ``None`` if it does not translate."""

    def __bool__(self) -> bool:
        return self.frame is not None


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken invariant, as the machine saw it."""

    invariant: str
    """``I1`` to ``I34``."""
    address: int | None
    message: str
    actor: str = ""
    step: int = 0


class Counters(Mapping[str, int]):
    """What the machine's CPUs did, counted up to the moment it was asked for: by key or as attributes."""

    __slots__ = ("_counts",)

    def __init__(self, counts: Mapping[str, int]) -> None:
        """Hold these counts.

        Args:
            counts: Counts by name.
        """
        self._counts = dict(counts)

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def __getattr__(self, name: str) -> int:
        try:
            return self._counts[name]
        except KeyError:
            raise AttributeError(f"no counter {name!r}: there are {', '.join(self._counts)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __repr__(self) -> str:
        return f"Counters({', '.join(f'{name}={count}' for name, count in self._counts.items() if count)})"


@dataclass(frozen=True, slots=True)
class TablesCopy:
    """Every table page at one moment, as in the ``.npz`` of an image."""

    pa: NDArray[np.uint64]
    level: NDArray[np.uint8]
    words: NDArray[np.uint64]


class Tables(Mapping[int, "NDArray[np.uint64]"]):
    """Table pages by physical address: each a read-only array of descriptors, lent by the machine without a copy.

    An array shows the machine's memory as it is, also when the kernel changes it or frees the table later. Each word is
    whole; while other threads run the machine a page is no snapshot. ``copy()`` is one, if nothing runs.
    """

    __slots__ = ("_core", "_levels")

    def __init__(self, core: _core.Machine) -> None:
        """List the tables that the machine has now.

        Args:
            core: The machine.
        """
        self._core = core
        self._levels = dict(core.tables())

    def __getitem__(self, pa: int) -> NDArray[np.uint64]:
        if pa not in self._levels:
            raise KeyError(pa)
        return self._core.words(pa)

    def __iter__(self) -> Iterator[int]:
        return iter(self._levels)

    def __len__(self) -> int:
        return len(self._levels)

    def __repr__(self) -> str:
        return f"<Tables: {len(self)} pages>"

    @property
    def pa(self) -> NDArray[np.uint64]:
        """Physical address of each table page, ascending."""
        import numpy as np

        return np.fromiter(self._levels, dtype=np.uint64, count=len(self._levels))

    @property
    def level(self) -> NDArray[np.int8]:
        """Arm level of each table page, in the order of ``pa``."""
        import numpy as np

        return np.fromiter(self._levels.values(), dtype=np.int8, count=len(self._levels))

    def copy(self) -> TablesCopy:
        """All of it at one moment, as arrays of the caller's own.

        Returns:
            ``pa`` (n), ``level`` (n) and ``words`` (n × descriptors in a table).
        """
        return TablesCopy(*self._core.image_arrays())


class _Rows:
    """The words of tables, copied as they are asked for.

    Args:
        core: The machine.
        pa: Physical addresses of the tables (n).
    """

    __slots__ = ("_core", "_pa", "shape")

    def __init__(self, core: _core.Machine, pa: NDArray[np.uint64]) -> None:
        self._core, self._pa, self.shape = core, pa, (len(pa), core.granule // 8)

    @property
    def nbytes(self) -> int:
        return self.shape[0] * self.shape[1] * 8

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint64]:
        return self._core.rows(self._pa[rows].tolist())


class Machine:
    """An arm64 machine with its kernel: boots with ``boot_memory`` at 1 GiB and room for ``hotplug_memory`` above it.

    Sizes are bytes or text like ``4G``. ``kernel`` is the behaviour modelled: ``2021``, ``6.1``, ``6.12``,
    ``6.12.117``, ``7.2``, ``7.3``; `hvo` is ``hugetlb_free_vmemmap`` at boot. Every other keyword is a policy
    (``update="bbm"``); ``vmemmap.policies()`` lists them. With `checked` every access is checked as a sanitizer does,
    and ``violations`` tells what it saw.
    """

    __slots__ = ("_core", "_description", "hugetlb", "memory")

    def __init__(
        self,
        *,
        granule: int | str = "4K",
        va_bits: int | str = 48,
        kernel: str = "6.1",
        boot_memory: int | str = "4G",
        hotplug_memory: int | str = 0,
        hvo: bool | str = True,
        checked: bool = False,
        **policies: str,
    ) -> None:
        """Boot a machine.

        Args:
            granule: Bytes of a base page, or text: ``4K``, ``16K``, ``64K``.
            va_bits: Bits of a kernel virtual address: 36, 39, 42, 47, 48 or 52.
            kernel: Kernel behaviour, by name: ``6.1``, ``6.12`` and so on.
            boot_memory: Bytes or text: RAM at boot, from 1 GiB on.
            hotplug_memory: Bytes or text: room above it where memory may be hot-added.
            hvo: ``hugetlb_free_vmemmap`` at boot.
            checked: Whether every access is checked, as a sanitizer does.
            **policies: Choices by policy, ``-`` as ``_``.

        Raises:
            SpecError: An argument, or a combination that no such kernel had.
        """
        from .. import _core

        document = _document(
            MachineSpec(
                granule=parse_granule(granule),
                va_bits=parse_va_bits(va_bits),
                kernel=parse_kernel(kernel),
                boot_memory=parse_size(boot_memory, "boot_memory"),
                hotplug_memory=parse_size(hotplug_memory, "hotplug_memory"),
                hvo=parse_switch(hvo, "hvo"),
                policies=_policies(policies),
            )
        )
        self._adopt(_core.Machine.boot(json.dumps(document), checked), None)

    def _adopt(self, core: _core.Machine, description: Description | None) -> None:
        self._core = core
        self._description = description
        self.hugetlb: HugeTLBPools = HugeTLBPools(core)
        """Pools by page size, like ``/sys/kernel/mm/hugepages``."""
        self.memory: Memory = Memory(core)
        """Memory blocks, like ``/sys/devices/system/memory``."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Of a machine that was loaded: what was taken instead of what the dump does not say, and what it lacks."""
        return self._description.notes if self._description is not None else ()

    @classmethod
    def from_spec(cls, spec: MachineSpec) -> Machine:
        """The machine that ``--machine`` describes, its pools filled.

        Args:
            spec: What ``--machine`` says.

        Returns:
            The machine.
        """
        machine = cls(
            granule=spec.granule,
            va_bits=spec.va_bits,
            kernel=spec.kernel,
            boot_memory=spec.boot_memory,
            hotplug_memory=spec.hotplug_memory,
            hvo=spec.hvo,
            checked=False,
            **spec.policies,
        )
        for size, count in spec.hugepages.items():
            machine.hugetlb[size].nr_hugepages = count
        return machine

    @classmethod
    def load(
        cls,
        path: StrPath,
        *,
        kernel: str | None = None,
        root: int | str | None = None,
        granule: int | str | None = None,
        va_bits: int | str | None = None,
        memstart: int | str | None = None,
        base: int | str | None = None,
        ram: Iterable[str | tuple[StrPath, int | str]] = (),
        checked: bool = False,
        **policies: str,
    ) -> Machine:
        """A real kernel's tables as a live machine: of an image (``.npz``, its JSON beside it) or of a vmcore.

        HugeTLB pages come from the JSON, whether each is optimised from the tables; of a vmcore only those that are
        optimised are known. `kernel` overrides the behaviour that the dump names; `root`, `granule`, `va_bits` and
        `memstart` are for a vmcore that does not say, `base` for raw memory, `ram` for further files of that
        (``FILE@ADDRESS``).

        Args:
            path: A table image (``.npz``) or a vmcore.
            kernel: Kernel behaviour, instead of the one that the dump names.
            root: Physical address of ``swapper_pg_dir``.
            granule: Bytes of a base page, or text: ``4K``, ``16K``, ``64K``.
            va_bits: Bits of a kernel virtual address: 36, 39, 42, 47, 48 or 52.
            memstart: ``memstart_addr``: physical address where the linear map starts, in bytes.
            base: Physical address of the first byte of a raw memory file.
            ram: Further raw memory files: ``FILE@ADDRESS``, or pairs of the two.
            checked: Whether every access is checked, as a sanitizer does.
            **policies: Choices by policy, ``-`` as ``_``.

        Returns:
            The machine.

        Raises:
            ImageError: The files cannot be read, or contradict themselves; one line that names the
                place.
        """
        from .. import _core
        from ..dumps.dump import Hints, read_tables

        hints = Hints.parse(
            kernel=kernel, root=root, granule=granule, va_bits=va_bits, memstart=memstart, base=base, ram=ram
        )
        image = read_tables(path, hints)
        d = image.description
        chosen = _policies(policies)
        machine = cls.__new__(cls)
        try:
            tables = _core.TableImage(image.pa, image.level, image.words, d)
            # The copy is the machine's to use up: of terabytes each is half a gigabyte.
            del image
            machine._adopt(_core.Machine.load(tables, json.dumps(chosen), checked), d)
        except ValueError as error:
            lacks = "".join(
                f"; {note}" for note in d.notes if "not in the dump" in note and "not in the image" in str(error)
            )
            raise type(error)(f"{os.fspath(path)}: {error}{lacks}") from None
        return machine

    def save(self, path: StrPath) -> None:
        """Write the tables as an image: ``.npz`` and the JSON beside it, whole or not at all.

        Args:
            path: The ``.npz`` to write; the JSON goes beside it.
        """
        from ..dumps.image import Image, write_npz

        tables = self.tables
        pa, level = tables.pa, cast("Any", tables.level).view("u1")
        # `write_npz` asks it for rows only.
        words = cast("NDArray[np.uint64]", _Rows(self._core, pa))
        write_npz(path, Image(pa=pa, level=level, words=words, description=self._describe()))

    def _describe(self) -> Description:
        from ..dumps.image_json import Description, HugepageRuns

        core = self._core
        layout = core.layout()
        fresh = Description(
            granule=core.granule,
            va_bits=core.va_bits,
            kernel=core.kernel,
            root_pa=core.root,
            memstart=layout["memstart_addr"],
            vmemmap_start=layout["VMEMMAP_START"],
            vmemmap_end=layout["VMEMMAP_END"],
            markers=tuple(layout["markers"]),
            ram=tuple((start, start + size, boot) for start, size, boot in core.ram()),
            blocks_online=tuple(core.blocks_online()),
            blocks_kernel=tuple(core.blocks_kernel()),
            block_size=core.section_size,
            hugepages=HugepageRuns.of([run for pool in self.hugetlb.values() for run in pool.runs]),
            hvo=core.hvo,
        )
        return fresh if self._description is None else replace(fresh, kernel_text=self._description.kernel_text)

    @property
    def granule(self) -> int:
        """Bytes of a base page."""
        return self._core.granule

    @property
    def va_bits(self) -> int:
        """Size of the virtual address space, in bits."""
        return self._core.va_bits

    @property
    def kernel(self) -> str:
        """Kernel behaviour that is modelled."""
        return self._core.kernel

    @property
    def root(self) -> int:
        """Physical address of ``swapper_pg_dir``."""
        return self._core.root

    @property
    def policies(self) -> dict[str, str]:
        """The choice of every policy row."""
        return self._core.policies()

    @property
    def hvo(self) -> bool:
        """``vm.hugetlb_optimize_vmemmap``. Assignable; pages optimised already stay so."""
        return self._core.hvo

    @hvo.setter
    def hvo(self, on: bool) -> None:
        run(self._core, "set_hvo", on=parse_switch(on, "hvo"))

    @property
    def counters(self) -> Counters:
        """What the machine did so far: exchanges, tlbi, dsb, frames and so on."""
        return Counters(self._core.counters())

    @property
    def tables(self) -> Tables:
        """The translation tables as they are now."""
        return Tables(self._core)

    @property
    def violations(self) -> list[Violation]:
        """What a checked machine saw happen, in order; of one that is not checked,
        only what kernel functions warn of themselves.
        """
        return [Violation(**found) for found in self._core.violations()]

    def check(self) -> list[Violation]:
        """Every invariant that tables, pools and sections at rest can show; empty if all hold.

        Returns:
            Every violation that is there while nothing runs.
        """
        return [Violation(**found) for found in self._core.check()]

    def fail_allocation(self, nth: int | None) -> None:
        """Let the `nth` allocation of frames from now fail, as if memory had run out; ``None``: none.

        Args:
            nth: Counted from 1, from now on; None: none.
        """
        self._core.fail_allocation(None if nth is None else _word(nth, "nth"))

    def page_address(self, pfn: int) -> int:
        """Virtual address of the ``struct page`` of a PFN (``pfn_to_page``): arithmetic, whether or not it is mapped.

        Kernel: ``pfn_to_page``, ``include/asm-generic/memory_model.h``.

        Args:
            pfn: Page frame number: physical address divided by the granule.

        Returns:
            Virtual address of its struct page.

        Raises:
            SpecError: vmemmap has no place for one of that PFN.
        """
        layout, number = self._core.layout(), _word(pfn, "pfn")
        address = self._core.page_address(number)
        first = _signed(layout["memstart_addr"]) // self.granule
        last = first + (layout["VMEMMAP_END"] - layout["VMEMMAP_START"]) // 64 - 1
        if not first <= number <= last:
            raise SpecError(f"pfn is {number:#x}: expected one with a struct page in vmemmap, {first:#x} to {last:#x}")
        return address

    def struct_page(self, pfn: int) -> StructPage | None:
        """The struct page of a PFN, read through the tables as they are now; ``None`` where they map nothing.

        Args:
            pfn: Page frame number: physical address divided by the granule.

        Returns:
            Eight words of 64 bits, decoded; None if vmemmap is not mapped there.
        """
        words = self._core.struct_page(_word(pfn, "pfn"))
        return None if words is None else StructPage(self.page_address(pfn), tuple(words))

    def linear_address(self, physical: int) -> int:
        """Virtual address of a physical address in the linear map (``__phys_to_virt``): arithmetic, whether or not it
        is mapped.

        Kernel: ``__phys_to_virt``, ``arch/arm64/include/asm/memory.h``.

        Args:
            physical: Physical address, in bytes.

        Returns:
            Virtual address.

        Raises:
            SpecError: The linear map has no place for it.
        """
        layout, address = self._core.layout(), _word(physical, "physical")
        first = _signed(layout["memstart_addr"])
        last = first + layout["PAGE_END"] - layout["PAGE_OFFSET"] - 1
        if not first <= address <= last:
            raise SpecError(f"physical is {address:#x}: expected an address of the linear map, {first:#x} to {last:#x}")
        return address - first + layout["PAGE_OFFSET"]

    def translate(self, va: int) -> Translation:
        """Walk the tables for a kernel virtual address.

        Args:
            va: Virtual address.

        Returns:
            Where the walk ended.

        Raises:
            SpecError: No table of the kernel translates it: a user address, or one that is none.
        """
        address = _word(va, "va")
        first = (1 << 64) - (1 << self.va_bits)
        if address < first:
            raise SpecError(f"va is {address:#x}: the tables of TTBR1 translate {first:#x} to {(1 << 64) - 1:#x}")
        return Translation(*self._core.translate(address))

    def ptdump(self, region: str | None = None) -> str:
        """The text of ``/sys/kernel/debug/kernel_page_tables``, or the slice of it that belongs to a region
        (``vmemmap``, ``linear``, ``vmalloc``, ...).

        Kernel: ``ptdump_walk``, ``arch/arm64/mm/ptdump.c``.

        Args:
            region: ``vmemmap``, ``linear``, ``modules``, ``vmalloc``, ``fixmap`` or ``pci``; None:
                everything.

        Returns:
            The text, byte for byte as ``kernel_page_tables`` has it.

        Raises:
            SpecError: There is no such region.
        """
        from .. import _core

        text = self._core.ptdump()
        if region is None:
            return text
        part = _core.ptdump_region(text, region)
        if part is None:
            names = (name for _, name in self._core.layout()["markers"] if name)
            regions = dict.fromkeys(name.rsplit(" ", 1)[0] for name in names)
            raise SpecError(f"region is {region!r}: expected one of {', '.join(regions)}")
        return part

    def _repr_html_(self) -> str:
        pools = [
            (f"hugepages of {name}", f"{pool.nr_hugepages:,}, {pool.optimised_hugepages:,} of them optimised")
            for name, pool in self.hugetlb.items()
            if pool.nr_hugepages
        ]
        blocks = [(f"memory{b.number}", f"{b.start:#x}, {b.state}") for b in self.memory.blocks]
        return html_table(repr(self), (), [*pools, ("tables", f"{len(self.tables):,}"), *blocks])

    def write_ptdump(self, path: StrPath) -> None:
        """Write the text of ``/sys/kernel/debug/kernel_page_tables`` into a file, without ever holding it as a whole:
        that of terabytes is gigabytes.

        Args:
            path: The file; replaced if it is there.

        Raises:
            SpecError: The file cannot be written.
        """
        self._core.write_ptdump(os.fspath(path))

    def __repr__(self) -> str:
        core = self._core
        return (
            f"<Machine {core.granule >> 10}K, {core.va_bits}-bit, kernel {core.kernel}, "
            f"{len(self.memory.blocks)} memory blocks>"
        )


def _word(value: int, what: str) -> int:
    try:
        number = value.__index__()
    except (AttributeError, TypeError):
        raise SpecError(f"{what} is {value!r}: expected an integer") from None
    if not 0 <= number < 1 << 64:
        raise SpecError(f"{what} is {number:#x}: expected 64 bits")
    return number


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def _policies(given: Mapping[str, object]) -> dict[str, str]:
    """Keywords as rows of the core's table: ``free_order="..."`` → ``{"free-order": "..."}``.

    Raises:
        SpecError: No such argument, policy or choice.
    """
    from inspect import signature

    from .. import _core

    known = _core.policies()
    chosen: dict[str, str] = {}
    for name, value in given.items():
        row = name.replace("_", "-")
        if row not in known:
            arguments = list(signature(Machine.__init__).parameters)[1:-1]
            rest = f"arguments are {', '.join(arguments)} and the policies that vmemmap.policies() lists"
            near = [*arguments, *(one.replace("-", "_") for one in known)]
            raise SpecError(f"a machine has no argument {name!r}{did_you_mean(name, near, rest, rest)}")
        check_policy(row, str(value), known)
        chosen[row] = str(value)
    return chosen


def _document(spec: MachineSpec) -> dict[str, object]:
    """The machine of a scenario document: boot memory from ``DRAM`` up, the hotplug region from the next section on."""
    check_machine(spec.granule, spec.va_bits, spec.kernel)
    section = section_size(spec.granule)
    hotplug = -(-(DRAM + spec.boot_memory) // section) * section
    return {
        "granule": spec.granule,
        "va_bits": spec.va_bits,
        "kernel": spec.kernel,
        "hvo": spec.hvo,
        "boot": [[DRAM, spec.boot_memory]],
        "hotplug": [[hotplug, spec.hotplug_memory]] if spec.hotplug_memory else [],
        "policies": dict(spec.policies),
    }
