"""R42: two last users of a HugeTLB subpool each find that they are the last.

==== ================================ ================================
step unmount (`hugepage_put_subpool`) last page of the last file goes
==== ================================ ================================
1    lock; count := 0; unlock
2                                     lock; used := 0; unlock
3    count and used are 0: yes
4                                     count and used are 0: yes
5    gives the minimum back; frees
6                                     gives the minimum back; frees
==== ================================ ================================

`unlock_or_release_subpool` asked after it had dropped the lock; 7.3 decides under it.

Derived by hand: in step 6 the reservation is given back a second time (I24; here nobody else reserves, so
resv_huge_pages would wrap) and the subpool is freed twice (I13). Asked under the lock in the cycle that lowered the
count, only the second to come sees both at 0: safe. Asked under the lock *again*, after it was dropped: both cycles of
the lowering may come first, and both see 0: the naive repair is as broken.

7.2, 6.12 and 6.1 are broken. Whoever gives the pages of the file back while another unmounts can do this; the window is
between an unlock and two loads. Scope: one subpool, one file, exhaustive.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import hugepage_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

_TWICE = ("I13", "I24")


@scenario(
    title="two last users of a hugetlbfs subpool give its minimum back and free it twice",
    corpus="R42",
    sources=["unlock_or_release_subpool (mm/hugetlb.c), v7.3 against 7.2.13 and 6.12.117"],
    judged=["I13", "I24"],
    variants=[
        Variant("7.2", "violated", _TWICE, {}, "7.2"),
        Variant("7.3", "safe", (), {}, "7.3"),
        Variant("6.12", "violated", _TWICE, {}, "6.12"),
        Variant("6.1", "violated", _TWICE, {}, "6.1"),
        Variant("7.2-locked", "safe", (), {"subpool-release": "locked"}, "7.2"),
        Variant("7.3-relocked", "violated", _TWICE, {"subpool-release": "relocked"}, "7.3"),
    ],
    kernels={"2021": "6.1", "6.1": "6.1", "7.2": "7.2", "7.3": "7.3", "*": "6.12"},
)
def r42_last_users_of_a_subpool(m: Setup) -> Sequence[Actor]:
    block = hugepage_block(m)
    pool = m.hugetlb["64K"]
    m.setup(pool.allocate(m.pfn(block.start)), pool.mount(1), pool.get_subpool_pages(1))
    return [Actor("unmount", [pool.unmount()]), Actor("truncate", [pool.put_subpool_pages(1)])]
