"""A laboratory for the page tables behind the kernel's ``struct page`` array on arm64.

Describe a machine, let the actors of the mm subsystem loose on its tables, and learn whether a way of doing it is safe,
what it saves and what it costs.

PYTEST_DONT_REWRITE: there is no assertion to rewrite for the plugin, and a session must not warn of this package,
    imported before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._core import VERSION as __version__
    from ._core import policies
    from .comparison.comparison import Comparison, compare
    from .dumps.checking import check
    from .dumps.difference import diff
    from .dumps.struct_page import StructPage
    from .errors import ImageError, InternalError, KernelError, SpecError, VmemmapError
    from .lab.exploration import Result, explore
    from .lab.litmus import LitmusAnswers, litmus
    from .lab.replay import ReplayResult, replay
    from .lab.scenario import Actor, Operation, Scenario, Variant, scenario
    from .lab.stressing import StressResult, stress
    from .machine.hugetlb import HugeTLBPool
    from .machine.machine import Machine, Translation
    from .machine.memory import MemoryBlock, MemoryRange

__all__ = [
    "Actor",
    "Comparison",
    "HugeTLBPool",
    "ImageError",
    "InternalError",
    "KernelError",
    "LitmusAnswers",
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
    "compare",
    "diff",
    "explore",
    "litmus",
    "policies",
    "replay",
    "scenario",
    "stress",
]

#: Name → the module that has it, which is imported when the name is first asked for (PEP 562).
_WHERE = {
    name: module
    for module, names in {
        "_core": ("policies",),
        "comparison.comparison": ("Comparison", "compare"),
        "dumps.checking": ("check",),
        "dumps.difference": ("diff",),
        "dumps.struct_page": ("StructPage",),
        "errors": ("ImageError", "InternalError", "KernelError", "SpecError", "VmemmapError"),
        "lab.exploration": ("Result", "explore"),
        "lab.litmus": ("LitmusAnswers", "litmus"),
        "lab.replay": ("ReplayResult", "replay"),
        "lab.scenario": ("Actor", "Operation", "Scenario", "Variant", "scenario"),
        "lab.stressing": ("StressResult", "stress"),
        "machine.hugetlb": ("HugeTLBPool",),
        "machine.machine": ("Machine", "Translation"),
        "machine.memory": ("MemoryBlock", "MemoryRange"),
    }.items()
    for name in names
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        value: object = import_module("._core", __name__).VERSION
    elif name in _WHERE:
        value = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # The next look finds it without this function.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
