"""``vmemmap check``: the captures are clean, and every kind of damage is found by the right invariant."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from damage import DAMAGE, Damage, Tree

from vmemmap.dumps.checking import check, check_dump
from vmemmap.dumps.dump import dump_of_image
from vmemmap.dumps.image import Image, read_npz, write_npz

CAPTURES = Path(__file__).parents[1] / "captures"
IMAGES = sorted(CAPTURES.glob("*/*.npz"))
TEXTS = sorted(CAPTURES.glob("*/*.ptdump.txt"))
SHOWN_BY_AN_IMAGE = {"I2", "I8", "I9", "I10", "I11", "I12", "I13", "I14", "I15", "I24", "I26", "I30", "I31", "I32"}
SEEDS = range(3)


def identity(path: Path) -> str:
    return f"{path.parent.name}-{path.name.split('.')[0]}"


@pytest.mark.parametrize("path", IMAGES, ids=identity)
def test_an_undamaged_capture_is_clean(path: Path) -> None:
    answer = check(path)
    assert (answer.verdict, answer.violations) == ("clean", ())
    assert {n for n, state in answer.invariants.items() if state == "held"} == SHOWN_BY_AN_IMAGE
    guest = json.loads(path.with_suffix(".json").read_text())["guest"]
    optimised = len(guest["hugetlb_heads_pfn_npages"])
    assert answer.counts["optimised_hugepages"] == optimised
    lost = answer.counts["mapped_pages"] - (answer.counts["distinct_frames"] or 0)
    # From 7.2 on the tails of a size have a frame of their own.
    shared = path.parent.name.startswith("7.") and optimised != 0
    assert lost == 7 * optimised - shared


@pytest.mark.parametrize("path", TEXTS, ids=identity)
def test_the_text_of_a_capture_is_clean_as_far_as_a_text_shows(path: Path) -> None:
    answer = check(path)
    image = check(path.with_name(path.name.replace(".ptdump.txt", ".npz")))
    assert answer.verdict == "clean"
    assert {n for n, state in answer.invariants.items() if state == "held"} == {"I9", "I30", "I31", "I32"}
    assert answer.machine.rsplit(" ", 1)[0] == image.machine.rsplit(" ", 1)[0]
    for name in ("mapped_pages", "blocks", "tables", "optimised_hugepages"):
        assert answer.counts[name] == image.counts[name], name


def test_tails_of_the_right_number_at_the_wrong_place_are_found(tmp_path: Path) -> None:
    """Seven read-only pages are the tails of a 2M hugepage only behind the first struct page of one."""
    text = (CAPTURES / "6.12-4k" / "B.ptdump.txt").read_text()
    for here, moved in (
        ("8000-0xfffffdffc0019000          68K", "8000-0xfffffdffc001a000          72K"),
        ("0xfffffdffc0019000-0xfffffdffc0020000", "0xfffffdffc001a000-0xfffffdffc0021000"),
        ("0xfffffdffc0020000-0xfffffdffc0051000         196K", "0xfffffdffc0021000-0xfffffdffc0051000         192K"),
    ):
        assert text.count(here) == 1
        text = text.replace(here, moved)
    (tmp_path / "moved.txt").write_text(text)
    assert [(v.invariant, v.address) for v in check(tmp_path / "moved.txt").violations] == [("I9", 0xFFFFFDFFC001A000)]


def can_show(damage: Damage, image: Image) -> bool:
    tree = Tree(image, random.Random(0))
    return {
        "": True,
        "hugepages": len(image.description.hugepages) > 1,
        "blocks": any(at[1] == 2 for at in tree.leaves()),
        "pages": bool(tree.pages()),
        "two leaves": len([at for at in tree.leaves() if not tree.word(at) & 1 << 7]) > 1,
        "contiguous": any(tree.is_leaf(e) and tree.word(e) >> 52 & 1 for e in tree.entries),
    }[damage.needs]


CAPTURES_DAMAGED = ["6.1-4k/B", "6.1-64k/B", "6.12-4k/B", "6.1-4k/E2", "6.1-4k/C"]


@pytest.fixture(scope="module")
def images() -> dict[str, Image]:
    return {name: read_npz(CAPTURES / f"{name}.npz") for name in CAPTURES_DAMAGED}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda d: d.name)
def test_damage_is_found_by_the_right_invariant(damage: Damage, images: dict[str, Image]) -> None:
    shown = 0
    for name, image in images.items():
        if not can_show(damage, image):
            continue
        for seed in SEEDS:
            tree = Tree(image, random.Random(f"{damage.name} {name} {seed}"))
            damage.do(tree)
            answer = check_dump(dump_of_image(f"{name}.npz", tree.image))
            found = {f.invariant for f in answer.violations}
            assert damage.invariant in found, f"{name}, seed {seed}: {damage.name}: found {answer.violations[:5]}"
            assert answer.verdict == "violated"
            assert answer.invariants[damage.invariant] == "violated"
            shown += 1
    assert shown


def test_at_least_twenty_five_kinds_are_known() -> None:
    assert len({d.name for d in DAMAGE}) >= 25
    assert {d.invariant for d in DAMAGE} == SHOWN_BY_AN_IMAGE


def test_a_violation_names_address_and_descriptor(images: dict[str, Image], tmp_path: Path) -> None:
    tree = Tree(images["6.1-4k/B"], random.Random(1))
    at = tree.tail()
    tree.flip(at, 1 << 7)
    write_npz(tmp_path / "x.npz", tree.image)
    (found,) = check(tmp_path / "x.npz").violations
    assert (found.invariant, found.address, found.level, found.descriptor) == ("I8", at[0], 3, tree.word(at))
    assert f"{tree.word(at):#018x}" in found.message


def test_a_wrecked_image_is_no_flood(images: dict[str, Image], tmp_path: Path) -> None:
    image = images["6.1-4k/B"]
    rng = np.random.default_rng(7)
    words = np.where(
        rng.random(image.words.shape) < 0.5, image.words, rng.integers(0, 1 << 63, image.words.shape, dtype=np.uint64)
    )
    root = int(np.flatnonzero(image.pa == image.description.root_pa)[0])
    words[root] = image.words[root]
    write_npz(tmp_path / "x.npz", Image(image.pa, image.level, words, image.description))
    answer = check(tmp_path / "x.npz")
    assert answer.verdict == "violated"
    assert max(sum(f.invariant == n for f in answer.violations) for n in answer.found) <= 100
