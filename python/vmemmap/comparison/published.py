"""Published times beside modelled ones: some are given, which set a machine's latencies, the others are predicted.

A latency is set so that the run of one given figure takes as long as published; no other number enters. What a given
figure cannot tell apart (a frame allocated, its content copied, its entry stored) is one latency, and the rest is 0. A
run has few hugepages, so the published number of them is reached by a straight line through two runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .. import _core
from .machine_file import CostedMachine, Latency, load
from .workload import OperationDocument, Work, run_work

__all__ = ["Cell", "Predicted", "Source", "machines", "table", "to_toml"]

KRAVETZ = "M. Kravetz, v8, 20231019023113.345257-1-mike.kravetz@oracle.com"
ZHAO_V1 = "Y. Zhao, v1, 20241021042218.746659-1-yuzhao@google.com"
ZHAO_V2 = "Y. Zhao, v2, 20241107202033.2721681-1-yuzhao@google.com"
ZHAO_DEMOTE = "Y. Zhao, mm/hugetlb: batch HVO work when demoting, 2024"
KHANDUAL = "A. Khandual, 48478b9f7913"

WITHIN = 10.0
"""Per cent: what a prediction is meant to reach."""

_SMALL = 32
_SMALL_PAGES = ("allocate", "free")


@dataclass(frozen=True)
class Cell:
    """One published figure, in seconds for `count` hugepages, and the operations that it is of."""

    name: str
    seconds: float
    count: int
    kernel: str
    policies: Mapping[str, str]
    operation: str
    #: The latency that it sets; None: it is predicted.
    sets: str | None = None
    #: What dominates the difference, or is missing.
    remark: str = ""
    #: Whether the prediction is meant to come within `WITHIN`.
    aimed: bool = False
    #: The given figure of which this one is an increase.
    base: float | None = None


@dataclass(frozen=True)
class Source:
    """A published table, and the machine that its given figures make."""

    machine: str
    about: str
    source: str
    broadcast: str
    cpus: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Predicted:
    """A cell with what the model says."""

    source: Source
    cell: Cell
    modelled: float
    given: bool

    @property
    def error(self) -> float:
        """Per cent of what was published."""
        return (self.modelled / self.cell.seconds - 1) * 100

    @property
    def increase_error(self) -> float | None:
        """Per cent of what the published figure is above its base, which is given: the harder question."""
        base = self.cell.base
        return ((self.modelled - base) / (self.cell.seconds - base) - 1) * 100 if base is not None else None

    @property
    def within(self) -> bool | None:
        """Whether a prediction that is meant to be is close enough."""
        return abs(self.error) <= WITHIN if self.cell.aimed else None

    def to_dict(self) -> dict[str, object]:
        """For JSON.

        Returns:
            The cell, published and modelled.
        """
        return {
            "machine": self.source.machine,
            "source": self.source.source,
            "name": self.cell.name,
            "given": self.given,
            "sets": self.cell.sets,
            "published_s": self.cell.seconds,
            "modelled_s": round(self.modelled, 4),
            "error_percent": round(self.error, 1),
            "increase_error_percent": None if self.increase_error is None else round(self.increase_error, 1),
            "aimed": self.cell.aimed,
            "remark": self.cell.remark,
        }


_OFF = {"hvo-config": "no"}
#: October 2023: the head is copied, nobody waits for a grace period yet.
_2023 = {"remap-grace": "none"}
_2023_ALONE = {**_2023, "batch": "none"}
_PAUSE = {**_2023, "update": "bbm-ipi-pause", "split": "bbm-ipi-pause"}


def _kravetz(machine: str, about: str, cpus: int, count: int, seconds: Sequence[float]) -> Source:
    off, off_free, alone, alone_free, batch, batch_free = seconds
    return Source(
        machine,
        about,
        KRAVETZ,
        "ipi",
        cpus,
        (
            Cell("HVO off, allocate", off, count, "6.12", _OFF, "allocate", "hugepage_alloc"),
            Cell("HVO off, free", off_free, count, "6.12", _OFF, "free", "hugepage_free"),
            Cell("batched, free", batch_free, count, "6.12", _2023, "free", "frame_alloc"),
            Cell("batched, allocate", batch, count, "6.12", _2023, "allocate", "frame_free"),
            Cell("unbatched, allocate", alone, count, "6.12", _2023_ALONE, "allocate", "ipi_deliver"),
            Cell(
                "unbatched, free",
                alone_free,
                count,
                "6.12",
                _2023_ALONE,
                "free",
                base=batch_free,
                remark="one flush for each page, as in the allocation, which has one for each split besides",
                aimed=True,
            ),
        ),
    )


def _zhao(machine: str, source: str, after: Sequence[float]) -> Source:
    alloc, free, demote, free_2m = after
    parts, large = 307_200, 600
    return Source(
        machine,
        "arm64, CPU not published",
        source,
        "dvm",
        2,
        (
            Cell("Free 307,200 2MB, before", 0.946, parts, "6.12", _2023, "free", "hugepage_free"),
            Cell("Free 307,200 2MB, after", free_2m, parts, "6.12", _PAUSE, "free", "ipi_deliver"),
            Cell("Demote 600 1GB, before", 1.575, large, "6.12", _2023, "demote", "demoted_part"),
            Cell(
                "Demote 600 1GB, after",
                demote,
                large,
                "6.12",
                _PAUSE,
                "demote",
                base=1.575,
                remark="one pause for each 2MB page made, and one to restore the 1GB page",
                aimed=True,
            ),
            Cell("Alloc 600 1GB, before", 3.526, large, "6.12", _2023, "allocate 1G", "gigantic_alloc"),
            Cell(
                "Alloc 600 1GB, after",
                alloc,
                large,
                "6.12",
                _PAUSE,
                "allocate 1G",
                base=3.526,
                remark="nine pauses here (eight splits, one exchange); the published increase is worth over thirty",
            ),
            Cell("Free 600 1GB, before", 0.880, large, "6.12", _2023, "free 1G", "gigantic_free"),
            Cell(
                "Free 600 1GB, after",
                free,
                large,
                "6.12",
                _PAUSE,
                "free 1G",
                base=0.880,
                remark="one pause for each page here; the published increase is worth about nine",
            ),
        ),
    )


SOURCES: tuple[Source, ...] = (
    _kravetz(
        "kravetz-xeon",
        "8-socket Xeon E7-8895, 500,000 pages of 2M",
        8,
        500_000,
        (4.119, 4.477, 28.973, 36.748, 7.267, 13.199),
    ),
    _kravetz(
        "kravetz-epyc-vm",
        "VM of 252 vCPUs on EPYC 7J13, 524,288 pages of 2M",
        252,
        524_288,
        (2.463, 2.931, 147.609, 149.924, 4.799, 5.273),
    ),
    _zhao("zhao-v1", ZHAO_V1, (3.779, 0.940, 5.132, 4.456)),
    _zhao("zhao-v2", ZHAO_V2, (3.649, 0.917, 3.640, 2.921)),
    Source(
        "zhao-demote",
        "x86, not named; demotion of 100 x 1G before and after batching",
        ZHAO_DEMOTE,
        "ipi",
        2,
        (
            Cell(
                "Demote 100 1GB, before",
                538.158,
                100,
                "6.12",
                {"batch": "none"},
                "demote",
                "grace_period",
            ),
            Cell(
                "Demote 100 1GB, after",
                0.900,
                100,
                "6.12",
                {},
                "demote",
                remark=(
                    "two grace periods for all pages together instead of 513 for each; the other work, which is what "
                    "is left, no figure tells apart from them"
                ),
            ),
        ),
    ),
)

#: Operations and hugepages of a small run, by what is timed.
_WORK: Mapping[str, Callable[[int], tuple[list[OperationDocument], list[OperationDocument]]]] = {
    "allocate": lambda n: ([], [OperationDocument(op="nr_hugepages", hstate=1, count=n)]),
    "free": lambda n: (
        [OperationDocument(op="nr_hugepages", hstate=1, count=n)],
        [OperationDocument(op="nr_hugepages", hstate=1, count=0)],
    ),
    "demote": lambda n: (
        [OperationDocument(op="hugetlb_alloc", hstate=3, at=None)] * n,
        [OperationDocument(op="hugetlb_demote", hstate=3, count=n)],
    ),
    "allocate 1G": lambda n: ([], [OperationDocument(op="hugetlb_alloc", hstate=3, at=None)] * n),
    "free 1G": lambda n: (
        [OperationDocument(op="hugetlb_alloc", hstate=3, at=None)] * n,
        [OperationDocument(op="hugetlb_free", hstate=3, at=None)] * n,
    ),
}


def _small(machine: CostedMachine, cell: Cell, ns: Mapping[str, float], cpus: int, pages: int) -> float:
    """Modelled seconds of so few hugepages."""
    before, timed = _WORK[cell.operation](pages)
    work: Work = run_work(
        machine,
        [("before", before, pages), ("timed", timed, pages)],
        kernel=cell.kernel,
        granule=4096,
        policies=cell.policies,
        cpus=cpus,
        ns=ns,
        memory=1 << 30 if cell.operation in _SMALL_PAGES else 8 << 30,
    )
    return work.phases["timed"].total_ns * 1e-9


def _seconds(machine: CostedMachine, cell: Cell, ns: Mapping[str, float], cpus: int) -> float:
    """Modelled seconds of all hugepages of the cell: a straight line through two small runs."""
    few = _SMALL if cell.operation in _SMALL_PAGES else 1
    one, two = (_small(machine, cell, ns, cpus, few * n) for n in (2, 4))
    return one + (cell.count - 2 * few) * (two - one) / (2 * few)


def _blank(source: Source) -> CostedMachine:
    reason = f"not told apart from others by the figures of {source.source}"
    zero = Latency(0.0, reason)
    latencies = {name: zero for name, _ in _core.latencies()}
    return CostedMachine(source.machine, source.about, source.broadcast, (source.cpus,), latencies)


def _set(machine: CostedMachine, source: Source, cell: Cell) -> CostedMachine:
    """The machine with the latency that the cell sets: times are straight lines in it, so two runs tell which."""
    assert cell.sets is not None
    at = [_seconds(machine, cell, {cell.sets: ns}, source.cpus) for ns in (0.0, 1000.0)]
    ns = round((cell.seconds - at[0]) / (at[1] - at[0]) * 1000.0, 3)
    said = f"calibrated: {source.source}: {cell.name}, {cell.seconds} s for {cell.count:,}"
    latencies = {**machine.latencies, cell.sets: Latency(ns, said)}
    return CostedMachine(machine.name, machine.about, machine.broadcast, machine.cpus, latencies)


def table(sources: Sequence[Source] = SOURCES) -> tuple[list[Predicted], list[CostedMachine]]:
    """Calibrate a machine on the given cells of each source, and predict the others.

    Args:
        sources: Published tables.

    Returns:
        Every cell with its modelled figure, and the machines.
    """
    cells: list[Predicted] = []
    made: list[CostedMachine] = []
    for source in sources:
        machine = _blank(source)
        for cell in source.cells:
            if cell.sets is not None:
                machine = _set(machine, source, cell)
        for cell in source.cells:
            seconds = _seconds(machine, cell, {}, source.cpus)
            cells.append(Predicted(source, cell, seconds, cell.sets is not None))
        made.append(machine)
    return cells, made


def unmap_range(machine: CostedMachine | None = None, cpus: int = 8) -> tuple[float, float]:
    """Modelled time in ``unmap_hotplug_range`` when a memory block is removed, flushed entry by entry and once.

    Args:
        machine: What operations cost; the shipped ``arm64`` by default.
        cpus: CPUs.

    Returns:
        Nanoseconds before and after 48478b9f7913.
    """
    chosen = machine or load("arm64")
    start, size = 0x40000000 + (64 << 30), 128 << 20
    phases: list[tuple[str, Sequence[OperationDocument], int]] = [
        ("add", [OperationDocument(op="memory_add", start=start, bytes=size)], 1),
        ("remove", [OperationDocument(op="memory_remove", start=start, bytes=size)], 1),
    ]
    times = [
        run_work(
            chosen,
            phases,
            kernel="6.12",
            granule=4096,
            policies={"linear-flush": flush},
            cpus=cpus,
            hotplug=[(start, size)],
        ).by_function_ns["unmap_hotplug_range"]
        for flush in ("entry", "range")
    ]
    return times[0], times[1]


def machines() -> list[CostedMachine]:
    """The machines that the published tables make.

    Returns:
        One for each source.
    """
    return table()[1]


def to_toml(machine: CostedMachine) -> str:
    """A machine as its file.

    Args:
        machine: The machine.

    Returns:
        TOML.
    """
    head = [
        "# Made by `python benches/machines.py`, from published figures alone; not to be edited.",
        f'name = "{machine.name}"',
        f'about = "{machine.about}"',
        f'broadcast = "{machine.broadcast}"',
        f"cpus = {list(machine.cpus)}",
        "",
        "[latency]",
    ]
    rows = [f'{name} = {{ ns = {entry.ns}, source = "{entry.source}" }}' for name, entry in machine.latencies.items()]
    return "\n".join([*head, *rows]) + "\n"
