"""The command ``vmemmap``, and ``python -m vmemmap``: a process that runs one command line."""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType
from typing import Final

__all__ = ["main"]

_ONE_INTERRUPT: Final = 1.0
"""Seconds in which a further Ctrl-C is the same one: what was found so far is being printed and saved."""


def main() -> int:
    """Run the command line of this process, its imports included.

    Returns:
        The exit code.
    """
    last = float("-inf")

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _ONE_INTERRUPT:
            last = now
            raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        from .cli import INTERRUPTED
        from .cli import main as run

        code = run()
        if code != INTERRUPTED:
            return code
    except KeyboardInterrupt:
        # Before the command line could say so.
        os.write(2, b"vmemmap: interrupted\n")
        code = 130
    # All is said; nothing is left to interrupt but the end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


if __name__ == "__main__":
    sys.exit(main())
