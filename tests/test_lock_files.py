"""The lock files of the programs outside the workspace, which are built with ``--locked`` and by no other test."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]


def declared(manifest: dict[str, Any]) -> set[str]:
    """What a crate needs to be built, on whatever host: names of packages."""
    tables = [manifest, *manifest.get("target", {}).values()]
    needed = (entry for table in tables for entry in table.get("dependencies", {}).items())
    return {
        value.get("package", name) if isinstance(value, dict) else name
        for name, value in needed
        if not (isinstance(value, dict) and value.get("optional"))
    }


@pytest.mark.parametrize("lock", ["benches/peers/Cargo.lock", "fuzz/Cargo.lock"])
def test_a_lock_file_knows_what_our_crates_need(lock: str) -> None:
    packages = tomllib.loads((ROOT / lock).read_text())["package"]
    locked = {p["name"]: {d.split()[0] for d in p.get("dependencies", [])} for p in packages}
    ours = {
        manifest["package"]["name"]: declared(manifest)
        for path in ROOT.glob("rust/*/Cargo.toml")
        for manifest in [tomllib.loads(path.read_text())]
    }
    used = ours.keys() & locked.keys()
    assert used, "it builds none of our crates"
    assert {name: ours[name] - locked[name] for name in used if ours[name] - locked[name]} == {}
