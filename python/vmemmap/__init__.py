"""A laboratory for the page tables behind the kernel's ``struct page`` array on arm64.

Describe a machine, let the actors of the mm subsystem loose on its tables, and learn whether a way of doing it is safe,
what it saves and what it costs.
"""

from __future__ import annotations

from ._core import VERSION as __version__
from ._core import policies as policies
from .errors import ImageError, InternalError, KernelError, SpecError, VmemmapError
from .hugetlb import HugeTLBPool
from .machine import Machine, Translation
from .memory import MemoryBlock, MemoryRange

__all__ = [
    "HugeTLBPool",
    "ImageError",
    "InternalError",
    "KernelError",
    "Machine",
    "MemoryBlock",
    "MemoryRange",
    "SpecError",
    "Translation",
    "VmemmapError",
    "__version__",
    "policies",
]
