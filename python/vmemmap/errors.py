"""Exceptions of the package: everything raised on purpose is a ``VmemmapError``."""

from __future__ import annotations

__all__ = ["ImageError", "InternalError", "KernelError", "SpecError", "VmemmapError"]


class VmemmapError(Exception):
    """Base of every exception that this package raises on purpose."""


class SpecError(VmemmapError, ValueError):
    """A call, an argument or a specification is wrong; one line that says what, where, and what would be right.

    The command line prints it on standard error and exits with 2.
    """


class ImageError(VmemmapError, ValueError):
    """A dump or image cannot be read or written, or its tables contradict themselves; one line that names the place.

    The command line prints it on standard error and exits with 2.
    """


class KernelError(VmemmapError, OSError):
    """The modelled kernel returned an error: ``errno`` and ``strerror`` are what its caller would see.

    Built as ``KernelError(errno.EBUSY, "memory16 is online")``. Not one of ``OSError``'s own subclasses, whatever the
    errno: no file is concerned. Its text is the reason in words, which names the errno.
    """

    def __str__(self) -> str:
        """The reason alone: the number of the errno says nothing that its name does not.

        Returns:
            ``strerror``, if it has one.
        """
        return self.strerror or super().__str__()


class InternalError(VmemmapError):
    """A fault of this package (a panic caught before it reached Python); please report it with the text."""
