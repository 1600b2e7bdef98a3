"""R36: a speculative reference straddles the remap, and nobody waits for it any more.

==== ===================================== ==========================================
step HVO                                   a reader: `page_ref_add_unless_zero(page1)`
==== ===================================== ==========================================
1    page1 is in use, with a count of one  loads the count: one
2    page1 is freed; a HugeTLB page is
     built over it, page1 is a tail
3    its PTE := read-only, the zone's tail
     frame; TLBI; its old frame is freed
4                                          compare-and-exchange (1 → 2): a store to
                                           read-only memory
==== ===================================== ==========================================

6.1 has the race (R1); 6.10 waited for a grace period between 2 and 3, for which the reader is in an RCU section; 7.1
took both away, because no struct page behind a read-only PTE has a count that is not zero. That answers a load that
comes *after* the remap. Here it came before.

Derived by hand, before any search:

* With LSE the CAS needs write permission although its compare would fail: 6.1, 7.2 and 7.3 break I8. 6.12 waits in
  step 2 for the reader's section, which begins before 1 and ends after 4: safe.
* With LDXR and STXR the second look finds 0 in whatever frame it reaches and stores nothing: safe everywhere. An RMW
  that comes between 2 and the TLBI through a stale translation reaches the old frame, where page1 is a tail by then:
  its count is 0 there too, the compare fails, and no store lands (I28 holds). Without the invalidate the old frame
  may be freed: I3.
* HVO not in the kernel: nothing is read-only, the compare fails, the reader gives up.
* Readers. In an RCU section: nobody waits for it in 7.x, violated. With interrupts off: nothing in 7.x waits for that
  either, where invalidates are broadcast, as on arm64: violated. One that holds a reference to another page of the
  same 2M range: the range cannot become a HugeTLB page, safe. LRU isolation under the list's lock: page1 leaves the
  list under that lock before it is freed, safe.
* Fixes. The wait put back without the reader's section: violated, as R1's ``no-rcu-section``. The section alone:
  violated. Both: safe. An IPI to every CPU instead of the wait, and interrupts off in the reader: safe; without the
  latter the IPI is taken between 1 and 4: violated. A freeze of the old struct pages before the remap adds nothing:
  their counts are zero already in step 2, and what faults is not a store that succeeds. A look at the tail under a
  lock that HVO takes too is the list's lock: safe, for every speculative reference.

What kind of statement this is: the generic code over arm64's primitives, which no arm64 kernel offers (HVO is not
selectable there in 7.2 or 7.3). The interleaving was confirmed on stock distribution kernels (x86-64, emulated,
forced): 7.3.4 with HVO on faults at the compare-and-exchange, with HVO off it gives up; 6.12.117 with HVO on waits.
No unforced occurrence is known. Not tried: arm64, 7.1, 7.2, 6.18.51, the stale translation.

Page1 is here a 64K HugeTLB page, the kind of page with references that the model has.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import hugepage_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

_STORE = ("I8",)
_LL_SC = {"atomics": "ll-sc"}
_SECTION = {"page-ref": "rcu"}
_WAIT = {"remap-grace": "synchronize-rcu"}
_IPI = {"remap-grace": "ipi", "ipi": "irq"}
_IRQS_OFF = {"reader": "irqs-off"}
_GUP_FAST = {"reader": "gup-fast"}
_BROADCAST = {"user-flush": "broadcast"}
_USER_IPI = {"user-flush": "ipi", "ipi": "irq"}


@scenario(
    title="a speculative reference straddles the remap of 7.x, which waits for no grace period",
    corpus="R36",
    sources=[
        "bd225530a4c7 mm/hugetlb_vmemmap: fix race with speculative PFN walkers (v6.10), which waits",
        "hugetlb: remove VMEMMAP_SYNCHRONIZE_RCU (v7.1), Message-ID 20260128135500.22121-14-kas@kernel.org",
        "derived from that removal; reported by nobody",
    ],
    judged=["I3", "I8", "I28"],
    variants=[
        Variant("7.3", "violated", _STORE, kernel="7.3"),
        Variant("7.2", "violated", _STORE, kernel="7.2"),
        Variant("6.12", "safe", kernel="6.12"),
        Variant("6.12.117", "safe", kernel="6.12.117"),
        Variant("6.1", "violated", _STORE),
        *(Variant(f"{kernel}-ll-sc", "safe", (), _LL_SC, kernel) for kernel in ("7.3", "7.2", "6.1")),
        Variant("7.3-hvo-not-configured", "safe", (), {"hvo-config": "no"}, "7.3"),
        Variant("7.3-no-invalidate", "violated", ("I3", "I8"), {"invalidate": "missing"}, "7.3"),
        Variant("reader-rcu", "violated", _STORE, _SECTION, "7.3"),
        Variant("reader-irqs-off", "violated", _STORE, {}, "7.3", _IRQS_OFF),
        Variant("gup-fast-broadcast", "violated", _STORE, _BROADCAST, "7.3", _GUP_FAST),
        Variant("gup-fast-ipi", "safe", (), _USER_IPI, "7.3", _GUP_FAST),
        Variant("reader-irqs-off-ipi", "violated", _STORE, _USER_IPI, "7.3", _IRQS_OFF),
        Variant("reader-holds-range", "safe", (), {}, "7.3", {"reader": "holds-range"}),
        Variant("reader-list-lock", "safe", (), {}, "7.3", {"reader": "list-lock"}),
        Variant("fix-wait", "violated", _STORE, _WAIT, "7.3"),
        Variant("fix-wait-and-section", "safe", (), {**_WAIT, **_SECTION}, "7.3"),
        Variant("fix-ipi", "violated", _STORE, _IPI, "7.3"),
        Variant("fix-ipi-irqs-off", "safe", (), _IPI, "7.3", _IRQS_OFF),
        Variant("fix-wait-and-section-ll-sc", "safe", (), {**_WAIT, **_SECTION, **_LL_SC}, "7.3"),
    ],
    kernels={"2021": "6.1", "6.1": "6.1", "6.12": "6.12", "6.12.117": "6.12.117", "7.2": "7.2", "*": "7.3"},
)
def r36_reference_straddles_remap(m: Setup, reader: str = "lockless") -> Sequence[Actor]:
    block = hugepage_block(m)
    head = m.pfn(block.start)
    small, large = m.hugetlb["64K"], m.pmd_hugepage
    per_page = m.granule // 64
    page1 = head + 3 * per_page + 16
    m.setup(small.allocate(page1), small.get())
    hvo = Actor("HVO", [small.put(page1), small.free(page1), large.allocate(head)])
    if reader == "holds-range":
        # Its own page of the range stays in use: HVO's allocation of the range fails.
        m.setup(small.allocate(head + 5 * per_page + 16), small.get())
    if reader in ("irqs-off", "gup-fast", "list-lock"):
        return [hvo, Actor("speculative reference", [m.guarded_ref(page1, reader)])]
    return [hvo, Actor("speculative reference", [m.speculative_ref(page1)])]
