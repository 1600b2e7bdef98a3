"""A laboratory for the page tables behind the kernel's ``struct page`` array on arm64.

Describe a machine, let the actors of the mm subsystem loose on its tables, and learn whether a way of doing it is safe,
what it saves and what it costs.

PYTEST_DONT_REWRITE: there is no assertion to rewrite for the plugin, and a session must not warn of this package,
    imported before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ._core import VERSION as __version__
from ._core import policies as policies
from .dumps.struct_page import StructPage
from .errors import ImageError, InternalError, KernelError, SpecError, VmemmapError
from .lab.lab import Result, StressResult, explore, stress
from .lab.replay import ReplayResult, replay
from .lab.scenario import Actor, Operation, Scenario, Variant, scenario
from .machine.hugetlb import HugeTLBPool
from .machine.machine import Machine, Translation
from .machine.memory import MemoryBlock, MemoryRange

if TYPE_CHECKING:
    from .dumps.checking import check
    from .dumps.difference import diff

__all__ = [
    "Actor",
    "HugeTLBPool",
    "ImageError",
    "InternalError",
    "KernelError",
    "Machine",
    "MemoryBlock",
    "MemoryRange",
    "Operation",
    "ReplayResult",
    "Result",
    "Scenario",
    "SpecError",
    "StressResult",
    "StructPage",
    "Translation",
    "Variant",
    "VmemmapError",
    "__version__",
    "check",
    "diff",
    "explore",
    "policies",
    "replay",
    "scenario",
    "stress",
]

_LATER = {"check": ".dumps.checking", "diff": ".dumps.difference"}
"""Names whose modules load NumPy: only when they are asked for."""


def __getattr__(name: str) -> object:
    if name in _LATER:
        return getattr(import_module(_LATER[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
