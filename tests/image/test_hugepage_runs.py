"""Images of machines with more hugepages than are listed one by one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vmemmap import Machine
from vmemmap.dumps import image_json
from vmemmap.dumps.image_json import HugepageRuns
from vmemmap.errors import ImageError

RUNS = ((512, 512, 3), (4096, 16, 2))
PAGES = [(512, 512), (1024, 512), (1536, 512), (4096, 16), (4112, 16)]


def test_runs_are_a_sequence_of_the_pages() -> None:
    pages = HugepageRuns(RUNS)
    assert (len(pages), list(pages), [pages[i] for i in range(-5, 5)]) == (5, PAGES, PAGES * 2)
    assert (pages[1:4], pages.counted(), pages == HugepageRuns(RUNS)) == (tuple(PAGES[1:4]), {512: 3, 16: 2}, True)
    assert HugepageRuns.of(RUNS) == tuple(PAGES)
    for outside in (5, -6):
        with pytest.raises(IndexError):
            pages[outside]


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An image whose five hugepages are too many to be listed."""
    monkeypatch.setattr(image_json, "_LISTED", 4)
    machine = Machine(boot_memory="1G", mapping="basepages")
    machine.hugetlb["2M"].nr_hugepages = 5
    assert sum(count for _, _, count in machine.hugetlb["2M"].runs) == 5
    machine.save(tmp_path / "many.npz")
    return tmp_path / "many.npz"


def test_an_image_with_runs_is_loaded_as_it_was(many: Path) -> None:
    guest = json.loads(many.with_suffix(".json").read_text())["guest"]
    assert "hugetlb_heads_pfn_npages" not in guest
    assert (guest["hugepages"], sum(run[2] for run in guest["hugetlb_runs_pfn_npages_count"])) == ({"2048kB": "5"}, 5)
    machine = Machine.load(many)
    pool = machine.hugetlb["2M"]
    assert (pool.nr_hugepages, pool.optimised_hugepages, machine.check()) == (5, 5, [])
    pool.nr_hugepages = 0
    assert (pool.runs, machine.check()) == ([], [])


@pytest.mark.parametrize("run", [[512, 512], [512, 512, 0], [512, 512, 1 << 25], [-512, 512, 1], "512", [1, "x", 1]])
def test_a_run_that_cannot_be_is_refused_in_one_line(many: Path, run: object) -> None:
    text = many.with_suffix(".json")
    data = json.loads(text.read_text())
    data["guest"]["hugetlb_runs_pfn_npages_count"] = [run]
    text.write_text(json.dumps(data))
    with pytest.raises(ImageError, match=r"hugetlb_runs_pfn_npages_count\[0\]") as refused:
        Machine.load(many)
    assert "\n" not in str(refused.value)
