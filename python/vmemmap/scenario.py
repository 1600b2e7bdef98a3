"""Scenarios: a machine, what happened on it before, and the actors whose interleavings are judged.

A scenario is a decorated function of a :class:`~vmemmap.stage.Stage`. It describes; nothing runs while it is
called. `vmemmap.explore` and `vmemmap.stress` hand the description to the Rust core as JSON.

The JSON that the core takes (format 1); addresses and sizes are integers, in bytes unless the key says PFN::

    {"format": 1,
     "name": "r33_bbm_hole", "corpus": "R33" | null, "variant": "4k-split-bbm",
     "machine": {
        "granule": 4096 | 16384 | 65536, "va_bits": 48, "kernel": "2021" | "6.1" | "6.12" | "6.12.117",
        "hvo": true,                       // on at boot and as sysctl
        "memstart": null | int,            // memstart_addr; null = start of RAM aligned down, as without KASLR
        "boot": [[start, bytes], ...],     // RAM present at boot
        "hotplug": [[start, bytes], ...],  // where memory may be hot-added
        "image": null | "/path/A.npz",     // tables of a real kernel: granule, va_bits, memstart and boot RAM come from
                                           // its JSON then (kernel and hvo from here); "hotplug" adds to its ranges
        "policies": {"update": "store", ...}},  // rows of rust/kernel/src/policy.rs; an absent row = what the kernel does
     "setup": [OPERATION, ...],            // run one after the other on CPU 0 before any actor starts; an error there is an
                                           // error of the scenario
     "actors": [{"name": "hot remove", "cpu": 1, "rounds": 1, "context": "task" | "irq" | "nmi",
                 "program": [OPERATION, ...]},
                {"name": "retries", "cpu": 2, "rounds": 1, "context": "task",
                 "program": null,          // its steps look at results: they are asked for
                 "steps": {"python": "retries", "source": DIGEST | null}}, ...],
     "judged": ["I1", "I2", "I6"],         // the verdict is about these; all others only fill their column
     "environment": {                      // what an explored machine's environment may do; every key may be absent
        "oracle": "strict" | "observed",   // observed: only accesses that go wrong count, not what survives a free
        "preempt_rt": false,               // spinlocks sleep and may not be taken in an interrupt
        "alloc_failures": 0,               // allocations of an execution that may fail, each a choice
        "spurious_fault": "tolerated" | "fatal",  // fatal: an access that may see an entry not yet published is a hole (I2)
        "ets": true,                       // FEAT_ETS2; false: the old invalid entry may be seen until the CPU's own ISB or exception
        "feat_bbm": "0" | "1" | "2" | "noabort" | [of each CPU, ...],  // ID_AA64MMFR2_EL1.BBM, or BBML2_NOABORT
        "conflict": "at_write" | "at_access" | "amalgamate" | "abort",  // what an access may do with two translations that
                                           // break-before-make should have kept apart (I19 is judged at the write in any case)
        "asids": [of each CPU, ...],       // more than there are CPUs: address spaces that ran before
        "iommu": false}}                   // an IOMMU shares the kernel's tables (SVA): a walk cache that no TLBI reaches

OPERATION is ``{"op": NAME, FIELD: VALUE, ...}``: NAME and fields are those of `Operation` in
rust/kernel/src/operation.rs, NAME in snake_case: ``{"op": "hugetlb_alloc", "hstate": 1, "at": 266240}``, ``"at": null`` for
any page. `hstate` counts the granule's hugepage sizes from the smallest. `zone` is ``"normal"`` or ``"movable"``.
`ptdump_walk` takes ``"range": {"start": VA, "end": VA}`` or ``"pfns": {"start": PFN, "end": PFN}``, the vmemmap of those frames.

`rounds` of an actor is how often its program runs in an exploration; a stress repeats it until the time is over. An
operation that returns an errno ends nothing: it is an observation, and the program goes on with the next one.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import pkgutil
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Literal, cast

from .errors import SpecError, VmemmapError
from .steps import Operation as Operation
from .steps import Source, Steps, program

FORMAT = 1

Expect = Literal["safe", "violated"]


@dataclass(frozen=True)
class Actor:
    """A CPU's work, `rounds` times: operations in order; or a function that yields operations and is sent their results."""

    name: str
    steps: Steps
    rounds: int = 1
    #: CPU of a task; None: one of its own. Of an interrupt: the one that it interrupts.
    cpu: int | None = None
    #: ``irq``: an interrupt that may come between any two operations of its CPU's tasks, or never, unless they mask it;
    #: ``nmi``: a pseudo-NMI, which ``irq_disable`` does not mask. On real threads both are just one thread more.
    context: Literal["task", "irq", "nmi"] = "task"

    def program(self) -> list[Operation] | None:
        """The operations of one round; None if they depend on results.

        :raises SpecError: the steps never end or yield something else.
        """
        return program(self.name, self.steps) if callable(self.steps) else list(self.steps)

    def source(self) -> Source:
        """What answers for steps that depend on results.

        :raises SpecError: the steps are a program.
        """
        if not callable(self.steps):
            raise SpecError(f"actor {self.name!r} is a program")
        return Source(self.name, self.steps)


def as_actors(given: Any) -> list[Actor]:
    """What a scenario function may return, as actors with names of their own: each an `Actor`, an operation, a function
    that yields operations, such a generator itself, or operations in order.

    :raises SpecError: something else.
    """
    expected = "expected actors: operations, functions that yield operations, or Actor(name, steps)"
    if isinstance(given, (Operation, Actor)) or callable(given):
        given = [given]
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise SpecError(f"the scenario returned {given!r}: {expected}")
    actors: list[Actor] = []
    for item in given:
        if isinstance(item, Actor):
            actors.append(item)
            continue
        steps: Steps
        if isinstance(item, Operation):
            name, steps = item.name, [item]
        elif isinstance(item, Generator):
            name = str(getattr(item, "__name__", "steps"))
            listed = Actor(name, lambda item=item: item).program()
            if listed is None:
                raise SpecError(f"{name!r} looks at results, and a generator cannot be started again: return the function instead")
            steps = listed
        elif callable(item):
            name, steps = str(getattr(item, "__name__", "steps")), cast(Steps, item)
        elif isinstance(item, (list, tuple)) and item and all(isinstance(step, Operation) for step in item):
            name, steps = item[0].name, list(item)
        else:
            raise SpecError(f"the scenario returned {item!r}: {expected}")
        name = name.replace("_", " ")
        taken = {actor.name for actor in actors}
        names = (name, *(f"{name} {number}" for number in range(2, len(taken) + 2)))
        actors.append(Actor(next(free for free in names if free not in taken), steps))
    return actors


@dataclass(frozen=True)
class Variant:
    """One way of running a scenario, and what it is expected to show.

    `invariants` are those expected to fall; empty when `expect` is ``safe``. `arguments` go to the scenario function,
    `environment` is that of the document.
    """

    name: str
    expect: Expect
    invariants: tuple[str, ...] = ()
    policies: Mapping[str, str] = field(default_factory=dict[str, str])
    kernel: str = "6.1"
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    environment: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "expect": self.expect,
            "invariants": list(self.invariants),
            "policies": dict(self.policies),
            "kernel": self.kernel,
            "environment": dict(self.environment),
        }


@dataclass(frozen=True)
class Description:
    """A scenario in one variant, ready for the core: what `document` says, and the words that bound its verdict."""

    document: Mapping[str, Any]
    scope: Mapping[str, Any]
    #: For each actor that has steps instead of a program, what answers for it.
    sources: Sequence[Source | None] = ()

    def json(self) -> str:
        return json.dumps(self.document, sort_keys=True)

    @property
    def digest(self) -> str:
        """Of everything the core is told, so that a trace can say what it belongs to."""
        return hashlib.sha256(self.json().encode()).hexdigest()[:16]

    @property
    def policies(self) -> Mapping[str, str]:
        return self.document["machine"]["policies"]

    @property
    def kernel(self) -> str:
        return self.document["machine"]["kernel"]


Describe = Callable[..., Any]
"""A function of a stage that returns what `as_actors` takes."""


@dataclass(frozen=True)
class Scenario:
    """A named description with variants. `describe(stage, **variant.arguments)` sets the stage and returns actors."""

    name: str
    title: str
    sources: tuple[str, ...]
    corpus: str | None
    judged: tuple[str, ...]
    variants: tuple[Variant, ...]
    describe: Describe
    doc: str = ""

    def variant(self, name: str | None = None) -> Variant:
        """:raises SpecError: no variant of that name; None is the first."""
        if name is None:
            return self.variants[0]
        for candidate in self.variants:
            if candidate.name == name:
                return candidate
        raise SpecError(f"{self.name} has no variant {name!r}; it has {', '.join(v.name for v in self.variants)}")

    def stage(self, variant: Variant, policies: Mapping[str, str] = MappingProxyType({})) -> Description:
        """Describe one variant; `policies` override those of the variant (``--set``)."""
        from .stage import Stage

        stage = Stage(kernel=variant.kernel, policies={**variant.policies, **policies}, environment=variant.environment)
        try:
            actors = as_actors(self.describe(stage, **variant.arguments))
            return stage.describe(self, variant, actors)
        except VmemmapError:
            raise
        except Exception as error:
            raise SpecError(f"scenario {self.name}: {type(error).__name__}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "corpus": self.corpus,
            "title": self.title,
            "sources": list(self.sources),
            "variants": [v.to_dict() for v in self.variants],
        }


def scenario(
    *,
    title: str,
    sources: Sequence[str],
    corpus: str | None = None,
    judged: Sequence[str] = ("I1", "I2", "I3", "I4", "I5", "I6", "I8", "I28"),
    variants: Sequence[Variant] = (),
) -> Callable[[Describe], Scenario]:
    """Turn a function of a stage into a scenario.

    :param corpus: its number in the corpus of races, ``R6``.
    :param judged: the invariants that the verdict is about; every other one only fills its column.
    """

    def decorate(function: Describe) -> Scenario:
        return Scenario(
            name=function.__name__,
            title=title,
            sources=tuple(sources),
            corpus=corpus,
            judged=tuple(judged),
            variants=tuple(variants) or (Variant("default", "safe"),),
            describe=function,
            doc=function.__doc__ or "",
        )

    return decorate


def _in_module(module: ModuleType) -> Iterable[Scenario]:
    return (value for value in vars(module).values() if isinstance(value, Scenario))


def registry() -> tuple[Scenario, ...]:
    """The scenarios that the package ships, in the order of their corpus numbers, then those without one."""
    from . import scenarios

    found: list[Scenario] = []
    for info in pkgutil.iter_modules(scenarios.__path__):
        found += _in_module(importlib.import_module(f"{scenarios.__name__}.{info.name}"))
    return tuple(sorted(found, key=lambda s: (s.corpus is None, int(s.corpus[1:]) if s.corpus else 0, s.name)))


def from_file(path: Path) -> tuple[Scenario, ...]:
    """The scenarios that a Python file defines.

    :raises SpecError: the file cannot be run, or defines none.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SpecError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise SpecError(f"{path}: {type(error).__name__}: {error}") from error
    found = tuple(_in_module(module))
    if not found:
        raise SpecError(f"{path}: defines no scenario")
    return found


def find(name: str) -> Scenario:
    """A scenario by name, by corpus number (``R6``) or as ``FILE.py[:NAME]``.

    :raises SpecError: there is none.
    """
    path, _, member = name.partition(":")
    if path.endswith(".py"):
        if not Path(path).is_file():
            raise SpecError(f"{path}: no such file")
        candidates = from_file(Path(path))
        name = member or candidates[0].name
    else:
        candidates = registry()
    for candidate in candidates:
        if name == candidate.name or name.upper() == candidate.corpus:
            return candidate
    raise SpecError(f"no scenario {name!r}; vmemmap list shows them")
