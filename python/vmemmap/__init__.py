"""A laboratory for the page tables behind the kernel's ``struct page`` array on arm64."""

from __future__ import annotations

from ._core import VERSION as __version__
from .errors import ImageError, InternalError, KernelError, SpecError, VmemmapError

__all__ = [
    "ImageError",
    "InternalError",
    "KernelError",
    "SpecError",
    "VmemmapError",
    "__version__",
]
