"""A small campaign, and what it finds when nobody disturbs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_campaign import JOBS, PARTS, SMALL, campaign, jobs, merged


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The jobs of `SMALL`, run in peace."""
    spec = tmp_path_factory.mktemp("undisturbed") / "small.toml"
    spec.write_text(SMALL)
    answer = campaign("run", spec, "--workers", "2")
    # Sampling decides nothing unless something is violated.
    assert answer.returncode == 3, answer
    found = jobs(spec)
    assert len(found) == JOBS
    assert all(job["state"] == "finished" for job in found)
    (search,) = merged(spec)
    assert (search["verdict"], search["exhaustive"], search["violated"]) == ("violated", True, ["I1", "I18"])
    assert len(search["jobs"]) == search["finished"] == PARTS
    return found


@pytest.fixture
def small(tmp_path: Path) -> Path:
    spec = tmp_path / "small.toml"
    spec.write_text(SMALL)
    return spec
