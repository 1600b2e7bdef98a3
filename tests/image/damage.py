"""Kinds of damage done to copies of the captures: what each does, and the invariant that must name it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from vmemmap.dumps.image import Image

VALID, TABLE, USER, RDONLY, AF = 1, 2, 1 << 6, 1 << 7, 1 << 10
CONT, PXN, UXN = 1 << 52, 1 << 53, 1 << 54
NORMAL_NC, DEVICE = 2 << 2, 3 << 2


class Tree:
    """The tables of an image by virtual address, to be damaged. Independent of the package: plain arithmetic."""

    def __init__(self, image: Image, rng: random.Random) -> None:
        d = image.description
        self.image = replace(image, words=image.words.copy(), pa=image.pa.copy(), level=image.level.copy())
        self.d, self.rng = d, rng
        self.shift = d.granule.bit_length() - 1
        self.top = 4 - (d.va_bits - 4) // (self.shift - 3)
        self.row = {int(pa): i for i, pa in enumerate(image.pa)}
        self.mask = ((1 << 48) - 1) & ~(d.granule - 1)
        self.per_page = d.granule // 64
        self.entries: list[tuple[int, int, int, int]] = []
        """(virtual address, level, row, index) of every descriptor that is not zero."""
        self._walk(self.row[d.root_pa], self.top, -(1 << d.va_bits) % (1 << 64))

    def span(self, level: int) -> int:
        return 1 << ((self.shift - 3) * (4 - level) + 3)

    def _walk(self, row: int, level: int, base: int) -> None:
        count = (
            1 << (self.d.va_bits - ((self.shift - 3) * (4 - level) + 3)) if level == self.top else self.d.granule // 8
        )
        present = np.flatnonzero(self.image.words[row][:count])
        if (
            level == 3
            and not self.in_vmemmap(base)
            and len(present) > 64
            and not (self.image.words[row] >> np.uint64(52) & np.uint64(1)).any()
        ):
            # Of the linear map, page by page, a few show as much as all.
            present = present[:2]
        for index in present:
            word = int(self.image.words[row][index])
            va = base + int(index) * self.span(level)
            self.entries.append((va, level, row, int(index)))
            if level < 3 and word & 3 == 3:
                self._walk(self.row[word & self.mask], level + 1, va)

    def word(self, at: tuple[int, int, int, int]) -> int:
        return int(self.image.words[at[2]][at[3]])

    def put(self, at: tuple[int, int, int, int], word: int) -> None:
        self.image.words[at[2]][at[3]] = word

    def flip(self, at: tuple[int, int, int, int], bits: int) -> None:
        self.put(at, self.word(at) ^ bits)

    def frame(self, at: tuple[int, int, int, int]) -> int:
        return self.word(at) & self.mask

    def in_vmemmap(self, va: int) -> bool:
        return self.d.vmemmap_start <= va < self.d.vmemmap_end

    def is_leaf(self, at: tuple[int, int, int, int]) -> bool:
        word = self.word(at)
        return bool(word & 3 == 3 if at[1] == 3 else word & 3 == 1)

    def leaves(self) -> list[tuple[int, int, int, int]]:
        return [at for at in self.entries if self.is_leaf(at) and self.in_vmemmap(at[0])]

    def pages(self) -> list[tuple[int, int, int, int]]:
        return [at for at in self.leaves() if at[1] == 3]

    def at(self, va: int) -> tuple[int, int, int, int]:
        return next(e for e in self.entries if e[0] == va and self.is_leaf(e))

    def linear(self) -> list[tuple[int, int, int, int]]:
        end = (-(1 << self.d.va_bits) % (1 << 64)) + (1 << (self.d.va_bits - 1))
        return [at for at in self.entries if self.is_leaf(at) and at[0] < end]

    def tables(self) -> list[tuple[int, int, int, int]]:
        return [at for at in self.entries if at[1] < 3 and self.word(at) & 3 == 3]

    def hugepage(self) -> list[tuple[int, int, int, int]]:
        """The vmemmap pages of a hugepage of the list, head first."""
        head, pages = self.rng.choice(self.d.hugepages)
        start = self.d.vmemmap_start + (head - self.d.memstart // self.d.granule) * 64
        return [self.at(start + i * self.d.granule) for i in range(pages // self.per_page)]

    def tail(self) -> tuple[int, int, int, int]:
        return self.rng.choice(self.hugepage()[1:])

    def describe(self, **changes: object) -> None:
        description = replace(self.image.description, **changes)  # type: ignore[arg-type]
        self.image = replace(self.image, description=description)


@dataclass(frozen=True)
class Damage:
    """One kind."""

    name: str
    invariant: str
    do: Callable[[Tree], None]
    needs: str = ""
    """``hugepages`` or ``blocks``: captures without them cannot show it."""


def any_leaf(t: Tree) -> tuple[int, int, int, int]:
    return t.rng.choice(t.leaves())


def writable_tail(t: Tree) -> None:
    t.flip(t.tail(), RDONLY)


def read_only_head(t: Tree) -> None:
    t.flip(t.hugepage()[0], RDONLY)


def read_only_leaf(t: Tree) -> None:
    heads = {t.frame(at) for at in t.pages() if t.word(at) & RDONLY}
    own = [at for at in t.leaves() if not t.word(at) & RDONLY and t.frame(at) not in heads]
    t.flip(t.rng.choice(own), RDONLY)


def two_pages_kept(t: Tree) -> None:
    """As 2021 leaves it: the second page is writable on a frame of its own, the rest share that."""
    page = t.hugepage()
    spare = t.frame(page[0]) + t.d.granule
    for n, at in enumerate(page[1:]):
        t.put(at, (t.word(at) & ~t.mask & ~(RDONLY if n == 0 else 0)) | spare)


def tail_of_another(t: Tree) -> None:
    first, second = t.rng.sample(t.d.hugepages, 2)
    start = [t.d.vmemmap_start + (head - t.d.memstart // t.d.granule) * 64 for head, _ in (first, second)]
    tail = t.at(start[0] + t.d.granule * t.rng.randrange(1, 8))
    t.put(tail, (t.word(tail) & ~t.mask) | t.frame(t.at(start[1])))


def half_restored(t: Tree) -> None:
    """A rollback that stopped: one tail has a writable frame of its own again, the others are shared."""
    page = t.hugepage()
    at = t.rng.choice(page[1:])
    t.put(at, (t.word(at) & ~t.mask & ~RDONLY) | t.d.granule * 3 + t.d.ram[0][0] + t.d.granule * 4096)


def shared_and_not_listed(t: Tree) -> None:
    """The page has been freed, as the list says, and its tails are still shared."""
    pages = list(t.d.hugepages)
    pages.remove(t.rng.choice(pages))
    t.describe(hugepages=tuple(pages), pools=())


def pool_does_not_count(t: Tree) -> None:
    t.describe(pools=tuple((pages, nr + 1) for pages, nr in t.d.pools))


def hugepage_offline(t: Tree) -> None:
    head, _ = t.rng.choice(t.d.hugepages)
    block = head * t.d.granule // t.d.block_size
    t.describe(blocks_online=tuple(n for n in t.d.blocks_online or () if n != block))


def frame_twice(t: Tree) -> None:
    one, two = t.rng.sample([at for at in t.leaves() if not t.word(at) & RDONLY], 2)
    same = [at for at in t.leaves() if not t.word(at) & RDONLY and at[1] == one[1] and at != one]
    two = t.rng.choice(same)
    t.put(one, (t.word(one) & ~t.mask) | t.frame(two))


def frame_is_a_table(t: Tree) -> None:
    pages = t.pages()
    at = t.rng.choice(pages)
    t.put(at, (t.word(at) & ~t.mask) | int(t.rng.choice(list(t.image.pa))))


def frame_in_a_hugepage(t: Tree) -> None:
    at = t.rng.choice(t.pages())
    head, pages = t.rng.choice(t.d.hugepages)
    t.put(at, (t.word(at) & ~t.mask) | (head + t.rng.randrange(pages)) * t.d.granule)


def hole_in_boot_memory(t: Tree) -> None:
    t.put(any_leaf(t), 0)


def boot_section_gone(t: Tree) -> None:
    """Every vmemmap leaf of one section of boot memory."""
    size = (1 << (29 if t.d.granule == 65536 else 27)) // t.d.granule * 64
    boot = next((start, end) for start, end, boot in t.d.ram if boot)
    count = (boot[1] - boot[0]) // t.d.granule * 64 // size
    first = t.d.vmemmap_start + size * t.rng.randrange(count)
    for at in t.leaves():
        if first <= at[0] < first + size:
            t.put(at, 0)


def vmemmap_without_memory(t: Tree) -> None:
    """A leaf for struct pages far above all RAM, in a table that is there."""
    level = 2 if t.d.granule == 4096 else 3
    last = max(at for at in t.entries if at[1] == level and t.in_vmemmap(at[0]))
    leaf = max(at for at in t.leaves() if at[1] == level)
    room = t.d.granule // 8 - last[3] - 1
    far = t.d.ram[0][0] + (1 << 29)
    t.image.words[last[2]][last[3] + room // 2 + t.rng.randrange(room // 2)] = (t.word(leaf) & ~t.mask) | far


def empty_table(t: Tree) -> None:
    below = [t.row[t.word(at) & t.mask] for at in t.tables() if at[1] == 2 and t.in_vmemmap(at[0])]
    t.image.words[t.rng.choice(below)][:] = 0


def table_twice(t: Tree) -> None:
    at, other = t.rng.sample([e for e in t.tables() if e[1] == 2], 2)
    t.put(at, t.word(other))


def table_unlinked(t: Tree) -> None:
    t.put(t.rng.choice([e for e in t.tables() if e[1] == 2]), 0)


def table_not_in_the_image(t: Tree) -> None:
    at = t.rng.choice(t.tables())
    t.put(at, (t.word(at) & ~t.mask) | t.d.ram[0][0] + t.d.granule * 4097)


def table_outside_ram(t: Tree) -> None:
    at = t.rng.choice(t.tables())
    t.put(at, (t.word(at) & ~t.mask) | 1 << 44)


def table_of_itself(t: Tree) -> None:
    at = t.rng.choice([e for e in t.tables() if e[1] == 2])
    t.put(at, (t.word(at) & ~t.mask) | int(t.image.pa[at[2]]))


def table_bits(t: Tree) -> None:
    t.flip(t.rng.choice(t.tables()), 1 << t.rng.choice([2, 5, 10, 52, 55, 61]))


def leaf_outside_ram(t: Tree) -> None:
    at = any_leaf(t)
    t.put(at, (t.word(at) & ~t.mask) | 1 << 44)


def reserved_leaf_bits(t: Tree) -> None:
    t.flip(any_leaf(t), 1 << t.rng.choice([5, 48, 49]))


def block_not_aligned(t: Tree) -> None:
    at = t.rng.choice([e for e in t.leaves() if e[1] == 2])
    t.flip(at, 1 << t.rng.randrange(13, 16))


def page_without_its_type(t: Tree) -> None:
    t.flip(t.rng.choice(t.pages()), TABLE)


def block_at_the_top(t: Tree) -> None:
    t.flip(t.rng.choice([e for e in t.tables() if e[1] == t.top]), TABLE)


def invalid_not_zero(t: Tree) -> None:
    t.flip(any_leaf(t), VALID)


def executable(t: Tree) -> None:
    t.flip(t.rng.choice([at for at in t.leaves() if not t.word(at) & RDONLY]), PXN)


def executable_elsewhere(t: Tree) -> None:
    t.flip(t.rng.choice([at for at in t.linear() if not t.word(at) & RDONLY]), PXN)


def executable_for_users(t: Tree) -> None:
    t.flip(any_leaf(t), UXN)


def device_memory(t: Tree) -> None:
    t.flip(any_leaf(t), DEVICE)


def not_cached(t: Tree) -> None:
    t.flip(any_leaf(t), NORMAL_NC)


def no_access_flag(t: Tree) -> None:
    t.flip(any_leaf(t), AF)


def open_to_users(t: Tree) -> None:
    t.flip(any_leaf(t), USER)


def contiguous(t: Tree) -> None:
    t.flip(any_leaf(t), CONT)


def contiguous_set_shattered(t: Tree) -> None:
    """One of a set, anywhere in the tree, loses its bit: the others still promise it."""
    t.flip(t.rng.choice([e for e in t.entries if t.is_leaf(e) and t.word(e) & CONT]), CONT)


def linear_map_elsewhere(t: Tree) -> None:
    at = t.rng.choice(t.linear())
    t.put(at, (t.word(at) & ~t.mask) | t.frame(at) ^ t.span(at[1]))


def mapped_outside_ram(t: Tree) -> None:
    """A page of vmalloc, as Normal memory where there is none."""
    start = t.linear()[-1][0]
    at = t.rng.choice(
        [e for e in t.entries if t.is_leaf(e) and e[0] > start and not t.in_vmemmap(e[0]) and t.word(e) >> 2 & 7 == 0]
    )
    t.put(at, (t.word(at) & ~t.mask) | 1 << 44)


def level_of_the_array(t: Tree) -> None:
    rows = [i for i, level in enumerate(t.image.level) if level == 3]
    t.image.level[t.rng.choice(rows)] = 2


DAMAGE: Final = (
    Damage("a shared tail is writable", "I8", writable_tail, "hugepages"),
    Damage("the head of an optimised page is read-only", "I9", read_only_head, "hugepages"),
    Damage("a leaf that is nobody's tail is read-only", "I9", read_only_leaf),
    Damage("an optimised page keeps two vmemmap pages", "I9", two_pages_kept, "hugepages"),
    Damage("a tail maps the head of another hugepage", "I10", tail_of_another, "hugepages"),
    Damage("one frame is mapped by two hugepages", "I13", tail_of_another, "hugepages"),
    Damage("tails are shared and the page is not listed", "I11", shared_and_not_listed, "hugepages"),
    Damage("only some tails are shared", "I12", half_restored, "hugepages"),
    Damage("a frame is mapped twice", "I13", frame_twice, "two leaves"),
    Damage("a frame is mapped and used as a table", "I13", frame_is_a_table, "pages"),
    Damage("a frame of vmemmap lies in a hugepage", "I13", frame_in_a_hugepage, "hugepages"),
    Damage("a table page is linked nowhere", "I13", table_unlinked),
    Damage("an optimised page lies in an offline block", "I14", hugepage_offline, "hugepages"),
    Damage("the vmemmap of a boot section is gone", "I15", boot_section_gone),
    Damage("a struct page of boot memory does not translate", "I2", hole_in_boot_memory),
    Damage("nr_hugepages does not count the pages", "I24", pool_does_not_count),
    Damage("struct pages are mapped where there is no memory", "I26", vmemmap_without_memory),
    Damage("a table is reached twice", "I30", table_twice),
    Damage("a table is not in the image", "I30", table_not_in_the_image),
    Damage("a table lies outside RAM", "I30", table_outside_ram),
    Damage("a table points at itself", "I30", table_of_itself),
    Damage("a table descriptor has reserved bits", "I30", table_bits),
    Damage("a leaf maps outside RAM", "I30", leaf_outside_ram),
    Damage("a leaf has reserved bits", "I30", reserved_leaf_bits),
    Damage("a block is not aligned", "I30", block_not_aligned, "blocks"),
    Damage("a page descriptor has the type of a block", "I30", page_without_its_type, "pages"),
    Damage("a block at the top level", "I30", block_at_the_top),
    Damage("an invalid descriptor is not zero", "I30", invalid_not_zero),
    Damage("struct pages as device memory", "I30", device_memory),
    Damage("struct pages not cached", "I30", not_cached),
    Damage("the access flag is clear", "I30", no_access_flag),
    Damage("struct pages open to user space", "I30", open_to_users),
    Damage("the Contiguous bit in vmemmap", "I30", contiguous),
    Damage("a contiguous set is shattered", "I30", contiguous_set_shattered, "contiguous"),
    Damage("the linear map maps another address", "I30", linear_map_elsewhere),
    Damage("Normal memory outside RAM", "I30", mapped_outside_ram),
    Damage("the level array contradicts the tree", "I30", level_of_the_array),
    Damage("writable and executable struct pages", "I31", executable),
    Damage("writable and executable elsewhere", "I31", executable_elsewhere),
    Damage("executable at EL0", "I31", executable_for_users),
    Damage("an empty table stays linked", "I32", empty_table, "pages"),
)
