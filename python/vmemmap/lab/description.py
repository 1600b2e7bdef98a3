"""What the Rust core is given: a scenario in one variant, as a document.

The JSON that it takes (format 1); addresses and sizes are integers, in bytes unless the key says PFN::

    {"format": 1,
     "name": "r33_bbm_hole", "corpus": "R33" | null, "variant": "4k-split-bbm",
     "machine": {
        "granule": 4096 | 16384 | 65536, "va_bits": 48,
        "kernel": "2021" | "6.1" | "6.12" | "6.12.117" | "7.2" | "7.3",
        "hvo": true,               // on at boot and as sysctl
        "memstart": null | int,    // memstart_addr; null = start of RAM aligned down, as without KASLR
        "boot": [[start, bytes], ...],     // RAM present at boot
        "hotplug": [[start, bytes], ...],  // where memory may be hot-added
        "image": null | "/path/A.npz",     // tables of a real kernel: granule, va_bits, memstart and boot RAM come from
                                   // its JSON then (kernel and hvo from here); "hotplug" adds to its ranges
        "policies": {"update": "store", ...}},  // rows of rust/kernel/src/policy.rs; absent: what the kernel does
     "setup": [OPERATION, ...],    // run one after the other on CPU 0 before any actor starts; an error there is an
                                   // error of the scenario
     "actors": [{"name": "hot remove", "cpu": 1, "rounds": 1, "context": "task" | "irq" | "nmi",
                 "program": [OPERATION, ...]},
                {"name": "retries", "cpu": 2, "rounds": 1, "context": "task",
                 "program": null,  // its steps look at results: they are asked for
                 "steps": {"python": "retries", "source": DIGEST | null}}, ...],
     "judged": ["I1", "I2", "I6"],         // the verdict is about these; all others only fill their column
     "environment": {              // what an explored machine's environment may do; every key may be absent
        "oracle": "strict" | "observed",   // observed: only accesses that go wrong count, not what survives a free
        "preempt_rt": false,       // spinlocks sleep and may not be taken in an interrupt
        "alloc_failures": 0,       // allocations of an execution that may fail, each a choice
        "spurious_fault": "tolerated" | "fatal",  // fatal: seeing an entry not yet published is a hole (I2)
        "ets": "none" | "2" | "3", // FEAT_ETS2 (also true), FEAT_ETS3; none (also false): the old invalid entry may be
                                   // seen until the CPU's own ISB or exception
        "ordering": "published" | "ordered",  // what a store of a descriptor must have done before an invalidate covers
                                   // it: its CPU's DSB, or, as in Arm's model, come before (docs/memory-model.md)
        "memory": "sc" | "views",  // views: plain stores wait in the buffer of their CPU (docs/memory-model.md)
        "feat_bbm": "0" | "1" | "2" | "noabort" | [of each CPU, ...],  // ID_AA64MMFR2_EL1.BBM, or BBML2_NOABORT
        "conflict": "at_write" | "at_access" | "amalgamate" | "abort",  // what an access may do with two translations
                                   // that break-before-make should have kept apart (I19 is judged at the write anyway)
        "asids": [of each CPU, ...],       // more than there are CPUs: address spaces that ran before
        "iommu": false}}           // an IOMMU shares the kernel's tables (SVA): a walk cache that no TLBI reaches

OPERATION is ``{"op": NAME, FIELD: VALUE, ...}``: NAME and fields are those of `Operation` in
rust/kernel/src/operation.rs, NAME in snake_case: ``{"op": "hugetlb_alloc", "hstate": 1, "at": 266240}``, ``"at": null``
for any page. `hstate` counts the granule's hugepage sizes from the smallest. `zone` is ``"normal"`` or ``"movable"``.
`ptdump_walk` takes ``"range": {"start": VA, "end": VA}`` or ``"pfns": {"start": PFN, "end": PFN}``, the vmemmap of
those frames.

`rounds` of an actor is how often its program runs in an exploration; a stress repeats it until the time is over. An
operation that returns an errno ends nothing: it is an observation, and the program goes on with the next one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict

from .steps import OperationDict, Source, StepsDocument

FORMAT = 1

Value: TypeAlias = "bool | int | str | Sequence[int] | Sequence[str]"
"""What a key of ``environment`` may hold."""
Environment: TypeAlias = Mapping[str, Value]


class MachineDocument(TypedDict):
    """``machine`` of a document: sizes and addresses in bytes."""

    granule: int
    va_bits: int
    kernel: str
    hvo: bool
    memstart: int | None
    boot: list[list[int]]
    hotplug: list[list[int]]
    image: str | None
    policies: dict[str, str]


class _ActorMaybe(TypedDict, total=False):
    steps: StepsDocument


class ActorDocument(_ActorMaybe):
    """One of ``actors`` of a document."""

    name: str
    cpu: int
    rounds: int
    context: Literal["task", "irq", "nmi"]
    program: list[OperationDict] | None


class Document(TypedDict):
    """The whole document."""

    format: int
    name: str
    corpus: str | None
    variant: str
    machine: MachineDocument
    setup: list[OperationDict]
    actors: list[ActorDocument]
    judged: list[str]
    environment: dict[str, Value]


class Scope(TypedDict, total=False):
    """What a verdict covers. Scenarios add words of their own."""

    memory_model: str
    granule: str
    entries_per_table: int
    rounds: dict[str, int]
    actors: list[str]
    absent: list[str]
    window: str
    environment: str
    machine: str
    strategy: str
    #: "every execution", "every execution up to its first violation" or "some executions", within the bounds.
    covered: str
    bounds: str


@dataclass(frozen=True)
class Description:
    """A scenario in one variant, ready for the core: what `document` says, and the words that bound its verdict."""

    document: Document
    scope: Scope
    #: For each actor that has steps instead of a program, what answers for it.
    sources: Sequence[Source | None] = ()

    def json(self) -> str:
        """The document as the core reads it.

        Returns:
            The JSON, its keys sorted.
        """
        return json.dumps(self.document, sort_keys=True)

    @property
    def digest(self) -> str:
        """Of everything that the core is given, so that a trace can say what it belongs to."""
        return hashlib.sha256(self.json().encode()).hexdigest()[:16]

    @property
    def policies(self) -> Mapping[str, str]:
        """Choice of every policy that is not the kernel's own."""
        return self.document["machine"]["policies"]

    @property
    def kernel(self) -> str:
        """Kernel behaviour, by name."""
        return self.document["machine"]["kernel"]
