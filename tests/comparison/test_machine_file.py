"""What is wrong with a machine file is one line that names the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmemmap import _core
from vmemmap.comparison import machine_file
from vmemmap.errors import SpecError

NAMES = [name for name, _ in _core.latencies()]


def written(folder: Path, **changes: str | None) -> Path:
    """A good file but for the lines given; `None` leaves one out."""
    lines = {"name": 'name = "m"', "about": 'about = "a"', "broadcast": 'broadcast = "dvm"', "cpus": "cpus = [2]"}
    lines["latency"] = "[latency]"
    lines |= {name: f'{name} = {{ ns = 1.5, source = "s" }}' for name in NAMES}
    path = folder / "m.toml"
    kept = {**lines, **changes}.values()
    path.write_text("\n".join(line for line in kept if line is not None), encoding="utf-8")
    return path


def test_a_good_file_is_read_and_so_is_every_machine_of_the_package(tmp_path: Path) -> None:
    assert machine_file.load(written(tmp_path)).ns == dict.fromkeys(NAMES, 1.5)
    assert {"arm64", "kravetz-epyc-vm", "zhao-v2"} <= set(machine_file.shipped())
    for name in machine_file.shipped():
        machine = machine_file.load(name)
        assert machine.name == name and all(latency.source for latency in machine.latencies.values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"more": "tlbl = 3"}, "unknown latency 'tlbl'"),
        ({"cpus": "cpu = [2]"}, "unknown key 'cpu'"),
        ({"cpus": "cpus = [0]"}, "cpus"),
        ({"cpus": "cpus = []"}, "cpus"),
        ({"broadcast": 'broadcast = "carrier pigeon"'}, "broadcast"),
        ({"name": None}, "name: a text is missing"),
        ({"latency": None}, "latency: a table is missing"),
        ({"read": 'read = { ns = -3, source = "s" }'}, "latency.read: ns: -3 is negative"),
        ({"read": 'read = { ns = nan, source = "s" }'}, "latency.read: ns"),
        ({"read": 'read = { ns = true, source = "s" }'}, "latency.read: ns"),
        ({"read": "read = { ns = 1 }"}, "latency.read: source"),
        ({"read": 'read = { ns = 1, source = " " }'}, "latency.read: source"),
        ({"read": "read = 1"}, "latency.read: a table"),
        ({"read": 'read = { ns = 1, source = "s", unit = "us" }'}, "latency.read: unknown key 'unit'"),
        ({"read": None}, "latency.read: it is missing"),
        ({"name": "name = "}, "m.toml: "),
        ({"about": 'about = "a\\u001b[31m"'}, "about: a text of one line"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, str | None], said: str) -> None:
    changes = {**changes, **(dict.fromkeys(NAMES) if changes.get("latency", "") is None else {})}
    with pytest.raises(SpecError) as error:
        machine_file.load(written(tmp_path, **changes))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_machine_lists_those_there_are() -> None:
    with pytest.raises(SpecError, match="there is no such file or machine; machines are arm64"):
        machine_file.load("sparc")
