"""A laboratory for the page tables behind the kernel's ``struct page`` array on arm64.

Describe a machine, let the actors of the mm subsystem loose on its tables, and learn whether a way of doing it is safe,
what it saves and what it costs.
"""

from __future__ import annotations

from ._core import VERSION as __version__
from ._core import policies as policies
from .errors import ImageError, InternalError, KernelError, SpecError, VmemmapError
from .hugetlb import HugeTLBPool
from .lab import Result, StressResult, explore, stress
from .machine import Machine, Translation
from .memory import MemoryBlock, MemoryRange
from .replay import ReplayResult, replay
from .scenario import Actor, Operation, Scenario, Variant, scenario
from .struct_page import StructPage

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
    "explore",
    "policies",
    "replay",
    "scenario",
    "stress",
]
