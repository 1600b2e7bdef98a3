"""A campaign's jobs as a Parquet file, for what analyses tables (extra ``vmemmap[arrow]``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .. import saving
from ..errors import SpecError
from .results import Shown

__all__ = ["write"]


def write(shown: Shown, path: Path) -> None:
    """One row a job; policies and invariants as JSON text. Whole or not at all."""
    try:
        import pyarrow  # pyright: ignore[reportMissingTypeStubs]
        from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        raise SpecError("--parquet needs pyarrow: pip install 'vmemmap[arrow]'") from error
    # Without types.
    arrow: Any = pyarrow
    writer: Any = parquet
    schema = arrow.schema(
        [
            *(
                (name, arrow.string())
                for name in ("id", "kind", "scenario", "variant", "policies", "kernel", "granule", "strategy")
            ),
            *(
                (name, arrow.uint64())
                for name in ("number", "seed", "split", "executions", "operations", "steps", "states")
            ),
            *(
                (name, arrow.string())
                for name in ("state", "verdict", "expect", "violated", "invariants", "host", "version")
            ),
            ("prefix", arrow.string()),
            ("exhaustive", arrow.bool_()),
            ("seconds", arrow.float64()),
            *((name, arrow.string()) for name in ("started", "finished")),
        ]
    )
    names: list[str] = schema.names
    rows: list[dict[str, Any]] = []
    for row in shown.rows:
        job = row.to_dict()
        texts = {
            name: json.dumps(job[name]) if job.get(name) is not None else None for name in ("policies", "invariants")
        }
        violated = None if job["violated"] is None else " ".join(job["violated"])
        rows.append({name: {**job, **texts, "violated": violated}.get(name) for name in names})
    with saving.whole(path) as file:
        writer.write_table(arrow.Table.from_pylist(rows, schema=schema), file)
