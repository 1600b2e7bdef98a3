"""What ``import vmemmap`` loads: nothing that is only used later, and yet every public name is there."""

from __future__ import annotations

import json
import subprocess
import sys

import vmemmap

LATER = {"_core", "numpy", "rich", "jinja2", "click", "sqlite3", "json", "hashlib", "pathlib", "dataclasses"}


def run(program: str) -> object:
    return json.loads(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout)


def test_importing_the_package_loads_nothing_that_is_used_later() -> None:
    loaded = run(
        "import sys; before = set(sys.modules); import vmemmap; after = set(sys.modules) - before; "
        "import json; print(json.dumps(sorted(after)))"
    )
    assert isinstance(loaded, list)
    assert not LATER & {str(name).split(".")[-1] for name in loaded}
    assert [name for name in loaded if str(name).startswith("vmemmap")] == ["vmemmap"]


def test_every_public_name_is_found_and_listed() -> None:
    for name in vmemmap.__all__:
        assert getattr(vmemmap, name) is getattr(vmemmap, name), name
    assert set(vmemmap.__all__) <= set(dir(vmemmap))
    assert not hasattr(vmemmap, "no_such_name")


def test_a_star_import_has_every_public_name() -> None:
    missing = run(
        "names = {}; exec('from vmemmap import *', names); import json, vmemmap; "
        "print(json.dumps(sorted(set(vmemmap.__all__) - names.keys())))"
    )
    assert missing == []
