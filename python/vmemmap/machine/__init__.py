"""A machine driven by hand: HugeTLB pools, memory blocks and tables under the kernel's own names.

`machine` boots or loads one; `hugetlb` and `memory` are its sysfs; `operations` gives one operation to the core.
"""

from __future__ import annotations

from .hugetlb import HugeTLBPool, HugeTLBPools
from .machine import Counters, Machine, Tables, TablesCopy, Translation, Violation
from .memory import Memory, MemoryBlock, MemoryRange

__all__ = [
    "Counters",
    "HugeTLBPool",
    "HugeTLBPools",
    "Machine",
    "Memory",
    "MemoryBlock",
    "MemoryRange",
    "Tables",
    "TablesCopy",
    "Translation",
    "Violation",
]
