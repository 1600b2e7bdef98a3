"""A machine saved and loaded again is the same machine; attributes that a boot option adds are kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from vmemmap import _core
from vmemmap.dumps.image import read_npz
from vmemmap.machine.machine import Machine

CAPTURES = Path(__file__).parents[1] / "captures"
NG = 1 << 11


@pytest.mark.parametrize(
    ("granule", "va_bits", "kernel", "hugepage"),
    [
        ("4K", 39, "2021", "2M"),
        ("4K", 48, "6.1", "2M"),
        ("4K", 52, "6.12", "2M"),
        ("16K", 47, "6.1", "32M"),
        ("16K", 48, "6.12", "32M"),
        ("64K", 52, "6.1", "512M"),
    ],
)
def test_a_saved_machine_is_loaded_as_it_was(
    granule: str, va_bits: int, kernel: str, hugepage: str, tmp_path: Path
) -> None:
    machine = Machine(granule=granule, va_bits=va_bits, kernel=kernel, boot_memory="4G", hotplug_memory="1G")
    machine.hugetlb[hugepage].nr_hugepages = 3
    block = machine.memory.add("512M")
    block.online()
    machine.save(tmp_path / "saved.npz")
    loaded = Machine.load(tmp_path / "saved.npz")
    assert loaded.kernel == kernel
    assert loaded.ptdump() == machine.ptdump()
    assert loaded.hugetlb[hugepage].pages == machine.hugetlb[hugepage].pages
    image = read_npz(tmp_path / "saved.npz")
    survey = _core.survey(_core.TableImage(image.pa, image.level, image.words, image.description))
    assert len(survey["sections"]) == len([s for s in survey["sections"] if s["online"]])
    expected = "optimised, two pages reserved" if kernel == "2021" else "optimised"
    assert [state for _, _, state in survey["hugepages"]] == [expected] * 3


def test_a_kernel_with_non_global_mappings_keeps_making_them(tmp_path: Path) -> None:
    """KPTI: every leaf of the kernel has nG, so a hugepage optimised later must have it too."""
    with np.load(CAPTURES / "6.1-4k" / "A.npz") as arrays:
        pa, level, words = arrays["pa"], arrays["level"], arrays["words"]
    leaf = (words & 1 == 1) & ((words & 2 == 0) | (level == 3)[:, None])
    np.savez(tmp_path / "A.npz", pa=pa, level=level, words=np.where(leaf, words | np.uint64(NG), words))
    shutil.copy(CAPTURES / "6.1-4k" / "A.json", tmp_path / "A.json")
    machine = Machine.load(tmp_path / "A.npz")
    machine.hugetlb["2M"].nr_hugepages = 4
    assert machine.hugetlb["2M"].nr_hugepages == 4
    for head, pages in machine.hugetlb["2M"].pages:
        for pfn in range(head, head + pages, 64):
            assert machine.translate(machine.page_address(pfn)).descriptor & NG
    machine.hugetlb["2M"].nr_hugepages = 0
    assert " NG " in machine.ptdump("vmemmap")
    assert not [
        line for line in machine.ptdump("vmemmap").splitlines() if line.endswith("MEM/NORMAL") and " NG " not in line
    ]
