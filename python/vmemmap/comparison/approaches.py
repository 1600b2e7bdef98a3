"""The ways of bringing HVO to arm64 that were argued over, as choices of policies, with what each is beside it.

A: break-before-make with a fault handler that waits (Nanyong Sun, 2023-12 to 2024-01). B: the same inside stop_machine
(C. Marinas, 2024-01). C: read-only first, then the address, and FEAT_BBM for the block (C. Marinas and Yu Zhao,
2024-07). D: the other CPUs paused by IPI (Yu Zhao, 2024-10 and -11). None is in a kernel; A and D are written after
their reviews, C after a thread without code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..lab.description import Environment, Value
from ..lab.neighbours import Neighbours
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

__all__ = ["APPROACHES", "CONDITIONS", "Approach", "approach"]

READER, HOT_REMOVE, INTERRUPT = "PFN walker", "hot remove", "interrupt"


@scenario(
    title="one way of changing vmemmap, beside a reader, hot remove, an interrupt",
    corpus=None,
    sources=[
        "A: https://lore.kernel.org/all/20240113094436.2506396-1-sunnanyong@huawei.com/",
        "B: https://lore.kernel.org/all/d1671959-74a4-8ea5-81f0-539df8d9c0f0@huawei.com/ (quotes C. Marinas)",
        (
            "C: https://lore.kernel.org/all/"
            "CAOUHufZKBkiHQFMvkmoMSX88SdjZ12+FFwtfGJtKAqvMXxJS+g@mail.gmail.com/ (quotes C. Marinas)"
        ),
        "D: https://lore.kernel.org/all/20241107202033.2721681-1-yuzhao@google.com/",
    ],
    judged=["I1", "I2", "I4", "I5", "I6", "I19", "I25", "I28"],
)
def approach(m: Setup, granule: str, beside: str, at_boot: bool = False) -> Sequence[Actor]:
    """HVO allocates the hugepages of section A; beside it one other actor.

    Args:
        m: What a scenario function is given.
        granule: Of a base page.
        beside: The other actor.
        at_boot: HVO has done its work before.

    Returns:
        The actors.
    """
    pair = Neighbours.of(m, granule)
    if at_boot:
        m.setup(*[m.pmd_hugepage.allocate(pfn) for pfn in pair.hugepages])
    actors = [] if at_boot else [pair.hvo()]
    if beside == HOT_REMOVE:
        return [*actors, pair.hot_remove()]
    reader = pair.reader()
    if beside == INTERRUPT:
        return [*actors, Actor(INTERRUPT, reader.steps, cpu=0, context="irq")]
    return [*actors, reader]


@dataclass(frozen=True)
class Approach:
    """One row: a choice of policies, what it changes, and who it is explored beside."""

    name: str
    title: str
    kernel: str
    what: Literal["update", "split", "neither"]
    policies: Mapping[str, str] = field(default_factory=dict[str, str])
    environment: Environment = field(default_factory=dict[str, Value])
    beside: tuple[str, ...] = (READER, HOT_REMOVE)
    at_boot: bool = False
    #: Another scenario than `approach`, and its variant.
    elsewhere: tuple[str, str] | None = None
    remark: str = ""
    #: Where it is explored; None: where it shows most.
    pages: str | None = None

    @property
    def granule(self) -> str:
        """An update is explored where a hugepage's entries share a table with a neighbour's, a split where there is
        one."""
        return self.pages or ("4K" if self.what == "split" else "64K")

    def variants(self) -> list[Variant]:
        """For `explore`.

        Returns:
            One for each actor beside.
        """
        return [
            Variant(
                f"{self.name}-{beside.replace(' ', '-')}",
                "safe",
                (),
                self.policies,
                self.kernel,
                {"granule": self.granule, "beside": beside, "at_boot": self.at_boot},
                self.environment,
            )
            for beside in self.beside
        ]


_A = {"update": "bbm-fault-waits", "fault": "wait"}
_ALL = (READER, HOT_REMOVE, INTERRUPT)
_NOABORT: Environment = {"feat_bbm": "noabort"}


def _r36(name: str, title: str, variant: str, policies: Mapping[str, str], remark: str = "") -> Approach:
    return Approach(
        name,
        title,
        "7.3",
        "neither",
        policies,
        elsewhere=("R36", variant),
        remark=remark or "the generic code over arm64's primitives",
    )


_A_IRQS = {"update": "bbm-fault-waits-irqs-off", "fault": "wait"}
_B = {"update": "bbm-stop-machine"}
_C = {"update": "read-only-first"}
_D = {"update": "bbm-ipi-pause"}
_KEEP = {"update": "read-only-first", "head": "keep"}

APPROACHES: tuple[Approach, ...] = (
    Approach("off", "HVO off, as every arm64 kernel since early 2023", "6.1", "neither", {"hvo-config": "no"}),
    Approach("shipped", "exchange in one store, as arm64 could select it from v5.19", "6.1", "update"),
    Approach("shipped-split", "and the split in one store", "6.1", "split"),
    Approach("batching", "exchange in one store, batched (6.7), with the grace period of 6.10", "6.12", "update"),
    Approach("unbatched", "the same, page by page", "6.12", "update", {"batch": "none"}),
    Approach("zone-tail", "exchange in one store, one tail frame for each zone (7.1)", "7.3", "update"),
    Approach(
        "boot",
        "optimised before any other CPU runs",
        "7.3",
        "neither",
        at_boot=True,
        remark="by the setup, which is not how pre-HVO does it; nothing is restored",
    ),
    Approach("A", "break-before-make, the fault handler waits", "6.12", "update", _A, beside=_ALL),
    Approach("A-6.1", "the same where the head keeps its frame", "6.1", "update", _A, beside=_ALL),
    Approach(
        "A-irqs-off", "the same with interrupts off while an entry is none", "6.1", "update", _A_IRQS, beside=_ALL
    ),
    Approach("A-split", "A, for update and split", "6.12", "split", {**_A, "split": "bbm"}, beside=_ALL),
    Approach("B", "break-before-make in stop_machine", "6.12", "update", _B, beside=_ALL),
    Approach("B-split", "B, for update and split", "6.12", "split", {**_B, "split": "bbm-stop-machine"}, beside=_ALL),
    Approach("C-2021", "read-only first; two pages kept", "2021", "update", _C),
    Approach("C-6.1", "read-only first; the head keeps its frame, as in 6.1", "6.1", "update", _C),
    Approach("C-moves-head", "read-only first; the head moves, as in 6.12", "6.12", "update", _C),
    Approach("C", "read-only first; the head keeps its frame", "6.12", "update", _KEEP),
    Approach("C-7.3", "the same with the zone's tail frame", "7.3", "update", _KEEP),
    Approach(
        "C-split",
        "C, the split in one store on CPUs with BBML3 or BBML2_NOABORT",
        "6.12",
        "split",
        _KEEP,
        environment=_NOABORT,
    ),
    Approach(
        "C-split-bbml2",
        "the same on CPUs with FEAT_BBM level 2, which may abort",
        "6.12",
        "split",
        _KEEP,
        environment={"feat_bbm": "2"},
    ),
    Approach("C-split-level-0", "the same on CPUs without", "6.12", "split", _KEEP),
    Approach("C-base-pages", "C without a split: base pages", "6.12", "split", {**_KEEP, "mapping": "basepages"}),
    Approach("D", "other CPUs paused by pseudo-NMI", "6.12", "update", _D, beside=_ALL),
    Approach("D-split", "D, for update and split", "6.12", "split", {**_D, "split": "bbm-ipi-pause"}, beside=_ALL),
    Approach(
        "D-irq",
        "other CPUs paused by a plain IPI; two CPUs do it at once",
        "6.1",
        "update",
        {**_D, "ipi": "irq"},
        elsewhere=("R5", "e-two-plain-ipi"),
    ),
    _r36("R36", "7.3 as it is, beside a speculative reference", "7.3", {}),
    _r36(
        "R36-wait-and-section",
        "grace period and read section back",
        "fix-wait-and-section",
        {"remap-grace": "synchronize-rcu", "page-ref": "rcu"},
    ),
    _r36(
        "R36-ipi",
        "an IPI before the remap, readers with interrupts off",
        "fix-ipi-irqs-off",
        {"remap-grace": "ipi", "ipi": "irq"},
    ),
)
"""The rows of ``vmemmap compare R3``, in order."""

KERNELS = ("2021", "6.1", "6.12", "7.3")


def _conditions() -> list[Approach]:
    """The exchange as one store, and with a moment at which it is not there, beside the removal of the only other
    section whose vmemmap the same table maps."""
    rows: list[Approach] = []
    for pages, entries in (("64K", "one page of 512M"), ("16K", "four pages of 32M")):
        for update, words in (
            ("store", "entries exchanged in one store"),
            ("clear-then-set", "entries cleared, then set"),
        ):
            rows += [
                Approach(
                    f"{pages}-{update}-{kernel}",
                    f"{pages}, a PTE table ({entries}): {words}",
                    kernel,
                    "update",
                    {"update": update},
                    beside=(HOT_REMOVE,),
                    pages=pages,
                )
                for kernel in KERNELS
            ]
    for split, words in (("store", "block split in one store"), ("bbm", "block split by break-before-make")):
        rows += [
            Approach(
                f"4K-split-{split}-{kernel}",
                f"4K, the PMD table: {words}",
                kernel,
                "split",
                # 2021 populates base pages when HVO is on, and then has nothing to split.
                {"split": split, **({"mapping": "blocks"} if kernel == "2021" else {})},
                beside=(HOT_REMOVE,),
                pages="4K",
            )
            for kernel in KERNELS
        ]
    return rows


CONDITIONS: tuple[Approach, ...] = tuple(_conditions())
"""The rows of ``vmemmap compare R32``: the second condition of May 2021, layout by layout and kernel by kernel."""
