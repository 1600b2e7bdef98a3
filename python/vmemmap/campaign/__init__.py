"""Campaigns: many explorations and stresses, on one machine or on a cluster, killed at any time and nothing lost.

``SPEC.toml`` → `spec` → `matrix` → jobs (`job`) → `coordinator`, which gives them to an executor (`workers`,
`dask_cluster`, or any other) where `execution` runs them, and writes what comes back into ``SPEC.db`` (`store`).
`results` and `table` read that again.
"""

from __future__ import annotations

from .running import Ended, Given, database_of, processes, resume, run

__all__ = ["Ended", "Given", "database_of", "processes", "resume", "run"]
