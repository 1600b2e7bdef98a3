"""What ``vmemmap run`` makes of an input: the machine of its kind, whatever the granule, VA size and kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmemmap import Machine
from vmemmap.acceptance.acceptance import accept
from vmemmap.acceptance.found import find
from vmemmap.errors import ImageError

KINDS = [
    ("16K", 47, "6.1"),
    ("16K", 48, "6.12"),
    ("16K", 52, "6.12"),
    ("64K", 42, "6.1"),
    ("64K", 48, "6.12"),
    ("64K", 52, "6.12"),
    ("4K", 39, "6.12"),
    ("4K", 52, "6.12"),
]


@pytest.mark.parametrize(("granule", "va_bits", "kernel"), KINDS)
def test_an_image_and_its_text_are_machines_of_the_same_kind(
    tmp_path: Path, granule: str, va_bits: int, kernel: str
) -> None:
    m = Machine(granule=granule, va_bits=va_bits, kernel=kernel, boot_memory="1G", hotplug_memory="1G")
    list(m.hugetlb.values())[1].nr_hugepages = 1
    image, text = tmp_path / "m.npz", tmp_path / "m.txt"
    m.save(image)
    text.write_text(m.ptdump())
    for path in (image, text):
        found = find(path)
        assert (found.granule, found.va_bits, found.kernel) == (m.granule, va_bits, kernel), path.name
    test = accept(find(image), 0.1)
    assert test.held, test.words
    assert all(actor["operations"] for actor in test.result.actors)


def test_a_text_of_no_arm64_layout_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "m.txt"
    text.write_text(Machine(boot_memory="256M").ptdump("vmemmap"))
    with pytest.raises(ImageError, match=r"m\.txt: no arm64 layout"):
        find(text)
