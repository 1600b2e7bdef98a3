"""R54: the printer of an oops reads an entry twice and descends by the second.

==== ===================================== ==========================================
step `show_pte`, interrupts off            hot remove
==== ===================================== ==========================================
1    reads the entry, prints it: table X
2                                          clears the entry, frees X
3    reads the entry again to descend: none,
     or another table: goes on with what is
     not what it tested
==== ===================================== ==========================================

CVE-2026-93239 (fixed in 6.1, in 6.12.111, in 7.x): the walk descends by the value that it printed. That is enough for
the tables of a process, which are freed only after every CPU has had its interrupts on. Tables of the *kernel* that hot
remove frees wait for nobody: the snapshot leads to X after its free (kernel-semantics §9).

Derived by hand: `re-read` I29 and I1; `snapshot`, every kernel as it is, still I1. A grace period before the free does
not help the second look (`re-read-grace`, I29): the entry is cleared before the wait. It would help the first one,
since interrupts off hold it up in the kernel; in the model a grace period waits for RCU sections alone, so that this is
derived and not searched.

What kind of statement this is: an interleaving; that a kernel which oopses beside a hot remove may oops once more while
it prints is a small thing, and the row says that the fix was made for other tables."""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import lone_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup
from ..lab.steps import Operation

_REREAD = {"show-pte": "re-read"}
_GRACE = {"table-free": "grace-period"}


@scenario(
    title="the oops printer walks tables that hot remove frees, and reads their entries twice",
    corpus="R54",
    sources=["CVE-2026-93239: arm64: show_pte", "kernel-semantics §9 (show_pte walks kernel tables without a lock)"],
    judged=["I1", "I29", "I25"],
    variants=[
        Variant("re-read", "violated", ("I1", "I29"), _REREAD),
        Variant("re-read-grace", "violated", ("I29",), {**_REREAD, **_GRACE}),
        Variant("snapshot", "violated", ("I1",)),
    ],
    kernels={"2021": "re-read", "*": "snapshot"},
)
def r54_oops_rereads_tables(m: Setup) -> Sequence[Actor]:
    block = lone_block(m, "4K")
    return [
        Actor("oops", [Operation("show_pte", {"at": m.pfn(block.start)})]),
        Actor("hot remove", [m.memory.remove(block)]),
    ]
