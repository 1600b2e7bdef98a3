"""A missed expectation in words, for ``pytest``."""

from __future__ import annotations

import shlex
from pathlib import Path

from .. import saving
from ..errors import SpecError
from ..lab import trace
from ..lab.expectation import Miss
from ..lab.exploration import Result
from ..lab.replay import replay
from .replay import text as replay_text

__all__ = ["miss_text"]


def miss_text(miss: Miss, result: Result, file: Path) -> str:
    """A missed expectation for people. The counterexample is saved as a trace in `file`, and shown as ``vmemmap
    replay`` shows it.
    """
    parts = [miss.line + (f"\n{miss.hint}" if miss.hint else ""), result.summary]
    saved = result.trace_file()
    if saved is not None:
        parts.append(replay_text(replay(saved)))
        try:
            with saving.whole_text(file) as out:
                trace.write(saved, out)
            parts.append(f"trace: {file}\nstep through it: vmemmap replay {shlex.quote(str(file))}")
        except SpecError as error:
            parts.append(f"trace not saved: {error}")
    return "\n\n".join(parts)
