"""The laboratory: actors described as a scenario, explored, stressed and replayed.

From the bottom: `steps` (what an actor does), `scenario`, `setup` (what a scenario function is given) and `neighbours`
(two blocks beside each other); `trace`; `lab` (explore, stress) and `replay`; `expectation` on top of both.
"""

from __future__ import annotations

from .lab import Result, StressResult, explore, stress

__all__ = ["Result", "StressResult", "explore", "stress"]
