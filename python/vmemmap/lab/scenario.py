"""Scenarios: a machine, what happened on it before, and the actors whose interleavings are judged.

A scenario is a decorated function of a :class:`~vmemmap.lab.setup.Setup`. It describes; nothing runs while it is
called. `vmemmap.explore` and `vmemmap.stress` hand the description to the Rust core as JSON
(`vmemmap.lab.description`).
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Final, Literal

from ..errors import SpecError, VmemmapError
from ..spec import did_you_mean
from .actor import Actor as Actor
from .actor import as_actors
from .answers import ScenarioDict, VariantDict
from .description import Description, Environment, Value
from .setup import Setup
from .steps import Operation as Operation

SHIPPED: Final = "vmemmap.scenarios"
"""The package whose modules define the scenarios that come with this one; found by name, as a plug-in is."""

Expect = Literal["safe", "violated"]


@dataclass(frozen=True)
class Variant:
    """One way of running a scenario, and what it is expected to show.

    `invariants` are those expected to be violated; empty when `expect` is ``safe``. `arguments` go to the scenario
    function, `environment` is that of the document. `repeated` are those that a stress may violate beside them, since
    it repeats rounds and puts back in between what they took, where an exploration has one round: derived by hand as
    well.
    """

    name: str
    expect: Expect
    invariants: tuple[str, ...] = ()
    policies: Mapping[str, str] = field(default_factory=dict[str, str])
    kernel: str = "6.1"
    arguments: Mapping[str, object] = field(default_factory=dict[str, object])
    environment: Environment = field(default_factory=dict[str, Value])
    repeated: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.expect not in ("safe", "violated"):
            raise SpecError(f"variant {self.name!r}: expect is {self.expect!r}: expected safe or violated")

    def to_dict(self) -> VariantDict:
        """As ``vmemmap list --json`` has it.

        Returns:
            The object that ``vmemmap list --json`` prints.
        """
        return {
            "name": self.name,
            "expect": self.expect,
            "invariants": list(self.invariants),
            "policies": dict(self.policies),
            "kernel": self.kernel,
            "environment": dict(self.environment),
        }


@dataclass(frozen=True)
class Absent:
    """What a scenario is about is not in a kernel, and why."""

    why: str


Kernels = Mapping[str, str | Absent]
"""By kernel, the variant that shows that kernel as it is; ``*`` stands for every one that is not named."""

_SHAPES: Final = frozenset({"mapping", "linear-map"})
"""Policies that say what the machine is, not what its kernel does."""


Describe = Callable[..., object]
"""A function of a setup that returns what `as_actors` takes."""


@dataclass(frozen=True)
class Scenario:
    """A named description with variants. `describe(m, **variant.arguments)` describes the machine and returns
    actors.
    """

    name: str
    title: str
    sources: tuple[str, ...]
    corpus: str | None
    judged: tuple[str, ...]
    variants: tuple[Variant, ...]
    describe: Describe
    doc: str = ""
    kernels: Kernels = field(default_factory=dict[str, "str | Absent"])

    def variant(self, name: str | None = None) -> Variant:
        """A variant by name.

        Args:
            name: None: the first.

        Returns:
            The variant.

        Raises:
            SpecError: No variant of that name; None is the first.
        """
        if name is None:
            return self.variants[0]
        if not isinstance(name, str):
            raise SpecError(f"variant is {name!r}: expected the name of one, or a Variant")
        for candidate in self.variants:
            if candidate.name == name:
                return candidate
        names = [v.name for v in self.variants]
        expected = did_you_mean(name, names, f"it has {', '.join(names)}")
        raise SpecError(f"{self.name} has no variant {name!r}{expected}")

    def on(self, kernel: str) -> tuple[Variant, str] | Absent:
        """How one kernel, as it is, runs the scenario.

        Args:
            kernel: A kernel behaviour.

        Returns:
            The variant and the kernel to explore it with, or why there is nothing to explore.
        """
        named = self.kernels.get(kernel, self.kernels.get("*"))
        if isinstance(named, Absent):
            return named
        if named is not None:
            return self.variant(named), kernel
        for variant in self.variants:
            if variant.kernel == kernel and not set(variant.policies) - _SHAPES:
                return variant, kernel
        return Absent("no variant of the scenario is this kernel as it is")

    def set_up(self, variant: Variant, policies: Mapping[str, str] = MappingProxyType({})) -> Description:
        """Describe one variant; `policies` override those of the variant (``--set``).

        Args:
            variant: The variant.
            policies: Choices by policy, such as ``{"update": "bbm"}``; they override those of the
                variant.

        Returns:
            What the core is given.

        Raises:
            VmemmapError: What the scenario function itself meets.
            SpecError: The scenario function fails, or describes something impossible.
        """
        if not isinstance(policies, Mapping):
            raise SpecError(f"policies is {policies!r}: expected choices by policy, like {{'update': 'bbm'}}")
        m = Setup(kernel=variant.kernel, policies={**variant.policies, **policies}, environment=variant.environment)
        try:
            actors = as_actors(self.describe(m, **variant.arguments))
            return m.describe(self.name, self.corpus, self.judged, variant.name, actors)
        except VmemmapError:
            raise
        except Exception as error:
            raise SpecError(f"scenario {self.name}: {type(error).__name__}: {error}") from error

    def to_dict(self) -> ScenarioDict:
        """As ``vmemmap list --json`` has it.

        Returns:
            The object that ``vmemmap list --json`` prints.
        """
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
    kernels: Kernels = MappingProxyType({}),
) -> Callable[[Describe], Scenario]:
    """Turn a function of a setup into a scenario.

    Args:
        title: What happens, in a line.
        sources: Where the race is described: commits, threads, papers.
        corpus: Its number in the corpus of races, ``R6``.
        judged: The invariants that the verdict is about; every other one only fills its column.
        variants: Ways of running it; without any there is one, expected to be safe.
        kernels: For ``vmemmap list --matrix``: the variant that is each kernel as it is, or `Absent`.

    Returns:
        A decorator that makes a `Scenario` of a function.

    Raises:
        SpecError: A variant is none.
    """
    for variant in variants:
        if not isinstance(variant, Variant):
            raise SpecError(f"variants holds {variant!r}: expected Variant(name, expect)")

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
            kernels=dict(kernels),
        )

    return decorate


def _in_module(module: ModuleType) -> Iterable[Scenario]:
    return (value for value in vars(module).values() if isinstance(value, Scenario))


def registry() -> tuple[Scenario, ...]:
    """The scenarios that the package ships, in the order of their corpus numbers, then those without one.

    Returns:
        The scenarios.
    """
    shipped = importlib.import_module(SHIPPED)
    found: list[Scenario] = []
    for info in pkgutil.iter_modules(shipped.__path__):
        found += _in_module(importlib.import_module(f"{SHIPPED}.{info.name}"))
    return tuple(sorted(found, key=lambda s: (s.corpus is None, int(s.corpus[1:]) if s.corpus else 0, s.name)))


def from_file(path: Path) -> tuple[Scenario, ...]:
    """The scenarios that a Python file defines.

    Args:
        path: A Python file, which is run.

    Returns:
        At least one scenario.

    Raises:
        SpecError: The file cannot be run, or defines none.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SpecError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise SpecError(f"{path}: {type(error).__name__}: {error}") from error
    found = tuple(_in_module(module))
    if not found:
        raise SpecError(f"{path}: defines no scenario")
    return found


def find(name: str) -> Scenario:
    """A scenario by name, by corpus number (``R6``) or as ``FILE.py[:NAME]``.

    Args:
        name: Name, corpus number, or ``FILE.py[:NAME]``.

    Returns:
        The scenario.

    Raises:
        SpecError: There is none.
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
    names = [word for one in candidates for word in (one.corpus, one.name) if word]
    if path.endswith(".py"):
        expected = did_you_mean(name, names, f"it has {', '.join(one.name for one in candidates)}")
        raise SpecError(f"{path} has no scenario {name!r}{expected}")
    raise SpecError(f"no scenario {name!r}{did_you_mean(name, names, 'vmemmap list shows them')}")
