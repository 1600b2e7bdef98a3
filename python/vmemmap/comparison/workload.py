"""Kernel operations on a modelled machine: pools that grow, shrink and are demoted, and what that takes.

The operations are the kernel's own (`rust/kernel`), run on tables of the real granule; only time is modelled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict, cast

from .. import _core
from ..lab.setup import DRAM
from ..spec import HUGEPAGE_SIZES, parse_granule, parse_kernel
from .machine_file import CostedMachine

__all__ = ["PAGES", "Counts", "Phase", "Work", "modelled", "pool_work", "run", "run_work"]

PAGES = 64
"""PMD-sized hugepages of a workload: at 4K as many as one vmemmap block describes."""

_MEMORY = {4096: 8 << 30, 16384: 16 << 30, 65536: 128 << 30}
_VA_BITS = {4096: 48, 16384: 47, 65536: 48}

OPERATIONS = ("allocate", "free", "allocate in a batch", "free in a batch", "demote")
"""What is timed, in the order of the tables; the two batches are for each page of one."""


class PhaseReport(TypedDict):
    """A phase, as the core reports it."""

    name: str
    latencies_ns: list[float]
    counters: dict[str, int]
    hole_longest_ns: float
    hole_total_ns: float
    frames_free: tuple[int, int]


class WorkReport(TypedDict):
    """The core's answer."""

    phases: list[PhaseReport]
    events: int
    seconds: float
    by_function_ns: dict[str, float]
    violations: int


class OperationDocument(TypedDict, total=False):
    """An operation of a phase."""

    op: str
    hstate: int
    count: int
    at: int | None
    start: int
    bytes: int


@dataclass(frozen=True)
class Counts:
    """What a phase did, for each of its pages."""

    tlbi: float = 0.0
    dsb: float = 0.0
    ipi: float = 0.0
    grace_periods: float = 0.0
    stop_machine: float = 0.0
    splits: float = 0.0
    writes: float = 0.0
    hole_ns: float = 0.0
    hole_total_ns: float = 0.0

    def to_dict(self) -> dict[str, float]:
        """For JSON.

        Returns:
            Numbers by name.
        """
        return {name: round(value, 3) for name, value in vars(self).items()}

    def plus(self, other: Counts) -> Counts:
        """Both, one after the other.

        Args:
            other: What came after.

        Returns:
            The sums, and the longer of the longest holes.
        """
        sums = {name: value + getattr(other, name) for name, value in vars(self).items()}
        return Counts(**{**sums, "hole_ns": max(self.hole_ns, other.hole_ns)})


@dataclass(frozen=True)
class Phase:
    """Operations of one kind, each on `pages` hugepages."""

    name: str
    report: PhaseReport
    pages: int

    @property
    def total_ns(self) -> float:
        """Modelled time of all of it."""
        return sum(self.report["latencies_ns"])

    def quantile(self, q: float) -> float:
        """Modelled latency of one operation, for each of its pages.

        Args:
            q: Between 0 and 1.

        Returns:
            Nanoseconds.
        """
        ordered = sorted(self.report["latencies_ns"])
        per = self.pages / len(ordered)
        return ordered[min(len(ordered) - 1, math.ceil(q * len(ordered)) - 1)] / per if ordered else 0.0

    @property
    def counts(self) -> Counts:
        """For each page."""
        counters = self.report["counters"]
        names = ("tlbi", "dsb", "ipi", "grace_periods", "stop_machine", "splits", "writes")
        each = {name: counters[name] / self.pages for name in names}
        hole = self.report["hole_longest_ns"]
        return Counts(**each, hole_ns=hole, hole_total_ns=self.report["hole_total_ns"] / self.pages)

    @property
    def frames_taken(self) -> int:
        """Free frames that are gone since it began."""
        before, after = self.report["frames_free"]
        return before - after


@dataclass(frozen=True)
class Work:
    """A workload that was run."""

    phases: Mapping[str, Phase]
    events: int
    seconds: float
    by_function_ns: Mapping[str, float] = field(default_factory=dict[str, float])
    cpus: int = 0


def run_work(
    machine: CostedMachine,
    phases: Sequence[tuple[str, Sequence[OperationDocument], int]],
    *,
    kernel: str,
    granule: int,
    policies: Mapping[str, str],
    cpus: int,
    seed: int = 0,
    hotplug: Sequence[tuple[int, int]] = (),
    demote_to: int = 1,
    memory: int | None = None,
    ns: Mapping[str, float] | None = None,
) -> Work:
    """Run phases of operations.

    Args:
        machine: What operations cost.
        phases: Name, operations, and how many hugepages they are about.
        kernel: Kernel behaviour.
        granule: Bytes of a base page.
        policies: Choice by policy.
        cpus: CPUs of the machine.
        seed: Of when CPUs elsewhere mask interrupts.
        hotplug: Where memory may be added.
        demote_to: Which size demotion makes, counted from the smallest.
        memory: Bytes of RAM at boot; enough for the workload of a comparison by default.
        ns: Latencies in the place of the machine's.

    Returns:
        What was done, and the modelled time.
    """
    document = {
        "machine": {
            "granule": granule,
            "va_bits": _VA_BITS[granule],
            "kernel": kernel,
            "boot": [(DRAM, memory or _MEMORY[granule])],
            "hotplug": list(hotplug),
            "policies": dict(policies),
        },
        "costs": {**machine.ns, **(ns or {})},
        "broadcast": machine.broadcast,
        "cpus": cpus,
        "seed": seed,
        "demote_to": demote_to,
        "phases": [{"name": name, "operations": list(operations)} for name, operations, _ in phases],
    }
    answer = cast("WorkReport", json.loads(_core.cost(json.dumps(document))))
    pages = {name: count for name, _, count in phases}
    done = {phase["name"]: Phase(phase["name"], phase, pages[phase["name"]]) for phase in answer["phases"]}
    return Work(done, answer["events"], answer["seconds"], answer["by_function_ns"], cpus)


def pool_work(granule: int, pages: int = PAGES) -> list[tuple[str, list[OperationDocument], int]]:
    """The workload of a comparison: pages of the PMD's size one by one and as a batch; where the granule has a larger
    size and room for it (1G at 4K), one of those, and its demotion.

    Args:
        granule: Bytes of a base page.
        pages: Hugepages of the PMD's size.

    Returns:
        Phases, as `run_work` takes them.
    """
    if granule == 65536:
        pages = min(pages, 32)
    one: list[OperationDocument] = [{"op": "hugetlb_alloc", "hstate": 1, "at": None}] * pages
    back: list[OperationDocument] = [{"op": "hugetlb_free", "hstate": 1, "at": None}] * pages
    phases = [
        ("allocate", one, pages),
        ("free", back, pages),
        ("allocate in a batch", [OperationDocument(op="nr_hugepages", hstate=1, count=pages)], pages),
        ("free in a batch", [OperationDocument(op="nr_hugepages", hstate=1, count=0)], pages),
    ]
    if granule == 4096:
        large: list[OperationDocument] = [{"op": "hugetlb_alloc", "hstate": 3, "at": None}] * 2
        phases += [
            ("allocate 1G", large, 2),
            ("free 1G", [OperationDocument(op="hugetlb_free", hstate=3, at=None)], 1),
            ("demote", [OperationDocument(op="hugetlb_demote", hstate=3, count=1)], 512),
        ]
    return phases


def run(
    machine: CostedMachine, *, kernel: str, granule: int | str, policies: Mapping[str, str], cpus: int, seed: int = 0
) -> Work:
    """Run the workload of a comparison.

    Args:
        machine: What operations cost.
        kernel: Kernel behaviour.
        granule: Of a base page.
        policies: Choice by policy.
        cpus: CPUs of the machine.
        seed: Of when CPUs elsewhere mask interrupts.

    Returns:
        What was done, and the modelled time.
    """
    size = parse_granule(granule)
    assert size in HUGEPAGE_SIZES
    return run_work(
        machine,
        pool_work(size),
        kernel=parse_kernel(kernel),
        granule=size,
        policies=policies,
        cpus=cpus,
        seed=seed,
    )


def modelled(work: Work, machine: CostedMachine) -> list[dict[str, object]]:
    """The key ``modelled`` of a row.

    Args:
        work: What was run.
        machine: On what.

    Returns:
        Modelled latency for each page of each operation.
    """
    return [
        {
            "cpus": work.cpus,
            "operation": name,
            "p50_ns": round(phase.quantile(0.5), 1),
            "p99_ns": round(phase.quantile(0.99), 1),
            "machine": machine.name,
        }
        for name, phase in work.phases.items()
    ]
