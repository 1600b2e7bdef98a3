"""R2: the fix of R1 tests for a fake head before it reads the count.

==== ===================================== ==========================================
step HVO                                   `page_ref_add_unless(page, 1, 0)`
==== ===================================== ==========================================
1    count frozen at 0;
     `synchronize_rcu` returns
2                                          `rcu_read_lock`; is `page` a fake head? No
3    remaps: `page` is read-only and reads
     as the head
4    the hugepage is used: count 1
5                                          count of `page`: 1, not zero
6                                          compare-and-exchange on read-only memory
==== ===================================== ==========================================

The page is slot 0 of a tail vmemmap page; other slots read as tails, whose count stays 0. bd225530a4c7, and 6.12.117
with it, has the two tests in this order in the program, so the interleaving needs no reordering and a search under
sequential consistency finds it. The fix reads the count first, with acquire (`page_count_writable`): a count that is
not zero was stored after the remap, so the test that follows sees the fake head.

The third variant is that fix without its acquire (``count-first-plain``; nobody proposed it): sequentially consistent
memory hides what is wrong with it. Derived by hand, and then run with ``memory views``:

==== ===================================== ==========================================
step HVO                                   reader
==== ===================================== ==========================================
1    count frozen at 0;
     `synchronize_rcu` returns
2                                          `rcu_read_lock`; the load of the flags, which
                                           comes second in the program, takes effect: a
                                           tail, not `PG_head`
3    remaps, invalidates, DSB: complete,
     since that load is over
4    the hugepage is used: count 1
5                                          count: 1, not zero; flags: as in step 2
6                                          compare-and-exchange on read-only memory
==== ===================================== ==========================================

Neither the branch on the count nor the grace period orders the two loads; the acquire does (``count-first-views``). It
is the architecture's `MP+shoot+po`: the invalidate waits for a load through the old entry, and does not make it later
than the load before it. ``count-first-relaxed`` says the same in any memory, by an explicit choice of the environment
that performs the two tests in the other order.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import hugepage_block
from ..lab.scenario import Absent, Actor, Variant, scenario
from ..lab.setup import Setup

_STORE = ("I8",)
_COUNT_FIRST = {"page-ref": "count-first"}
_PLAIN = {"page-ref": "count-first-plain"}
_VIEWS = {"memory": "views"}
_NO_TEST = Absent("no test for a fake head in page_ref_add_unless yet: R1")
_NO_FAKE_HEADS = Absent("no fake heads since 7.1, hence no test for one: R36")


@scenario(
    title="a speculative reference tests for a fake head before the count",
    corpus="R2",
    sources=[
        (
            "https://lore.kernel.org/all/20250108074822.722696-1-yuzhao@google.com/ (Yu Zhao, fix memory loads "
            "ordering, v2)"
        ),
        "https://lore.kernel.org/all/20250221154155.GE20567@willie-the-truck/ (W. Deacon's ack)",
        "include/linux/page_ref.h of 6.12.117: page_ref_add_unless",
    ],
    judged=["I8"],
    variants=[
        Variant("6.12.117", "violated", _STORE, kernel="6.12.117"),
        Variant("6.12", "violated", _STORE, kernel="6.12"),
        Variant("count-first-6.12.117", "safe", (), _COUNT_FIRST, "6.12.117"),
        Variant("count-first-6.12", "safe", (), _COUNT_FIRST, "6.12"),
        Variant("count-first-views", "safe", (), _COUNT_FIRST, "6.12.117", environment=_VIEWS),
        Variant("count-first-plain", "violated", _STORE, _PLAIN, "6.12.117", environment=_VIEWS),
        Variant("count-first-plain-sc", "safe", (), _PLAIN, "6.12.117"),
        Variant("count-first-relaxed", "violated", _STORE, {"page-ref": "count-first-relaxed"}, "6.12.117"),
        Variant("never-used", "safe", (), {}, "6.12.117", {"used": False}),
        Variant("other-slot", "safe", (), {}, "6.12.117", {"slot": 1}),
    ],
    kernels={"6.12": "6.12", "6.12.117": "6.12.117", "2021": _NO_TEST, "6.1": _NO_TEST, "*": _NO_FAKE_HEADS},
)
def r02_order_of_two_tests(m: Setup, used: bool = True, slot: int = 0) -> Sequence[Actor]:
    block = hugepage_block(m)
    head = m.pfn(block.start)
    pool = m.pmd_hugepage
    return [
        Actor("HVO", [pool.allocate(head), *([pool.get()] if used else [])]),
        Actor("speculative reference", [m.speculative_ref(head + 3 * (m.granule // 64) + slot)]),
    ]
