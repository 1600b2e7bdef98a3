"""The laboratory: actors described as a scenario, explored, stressed and replayed.

From the bottom: `steps` (what an actor does), `scenario`, `setup` (what a scenario function is given) and `neighbours`
(two blocks beside each other); `trace`; `exploration`, `stressing` and `replay`; `expectation` on top of them.
"""

from __future__ import annotations

from .exploration import Result, explore
from .stressing import StressResult, stress

__all__ = ["Result", "StressResult", "explore", "stress"]
