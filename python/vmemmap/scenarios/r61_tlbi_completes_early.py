"""R61: a DSB completes a broadcast invalidate while another CPU still uses the entry (CPU errata).

==== ===================================== ==========================================
step hot remove, on any CPU                an affected CPU
==== ===================================== ==========================================
1    clears the entry
2    TLBI, DSB: done
3                                          translates by the entry still
4    frees the frame
==== ===================================== ==========================================

CVE-2025-10263, CVE-2026-53354: on a list of CPUs the invalidate must be issued and completed twice
(ARM64_WORKAROUND_REPEAT_TLBI, widened in 7.1.1, 6.12.94 and 6.1.176).

Derived by hand: one TLBI and DSB on such a CPU, I4 where the frame is freed, by hot remove (`hot-remove`) and by HVO's
remap (`hvo`) alike. Twice: safe. On a CPU without the erratum: safe.

What kind of statement this is: what an erratum does to code that is right. In the model the DSB of
`flush_tlb_kernel_range` completes nothing the first time; `flush_tlb_all` and the flush for tables are left sound, so a
batch is not affected here though it is on the CPU. 2021 ran on such CPUs without knowing.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.neighbours import hugepage_block, lone_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

_STALE = ("I4",)
_EARLY = {"tlbi-erratum": "early"}
_REPEAT = {"tlbi-erratum": "repeat"}
_HVO = {"hvo": True}


@scenario(
    title="frames are freed after an invalidate that another CPU has not finished (errata)",
    corpus="R61",
    sources=["CVE-2025-10263, CVE-2026-53354: arm64: errata: mitigate TLBI errata on various Arm CPUs (v7.1.1)"],
    judged=["I3", "I4"],
    variants=[
        Variant("hot-remove", "violated", _STALE, _EARLY),
        Variant("hvo", "violated", _STALE, _EARLY, arguments=_HVO),
        Variant("hot-remove-repeat", "safe", (), _REPEAT),
        Variant("hvo-repeat", "safe", (), _REPEAT, arguments=_HVO),
        Variant("hot-remove-sound-cpu", "safe"),
    ],
    kernels={"2021": "hot-remove", "*": "hot-remove-repeat"},
)
def r61_tlbi_completes_early(m: Setup, hvo: bool = False) -> Sequence[Actor]:
    if hvo:
        block = hugepage_block(m)
        return [Actor("HVO", [m.pmd_hugepage.allocate(m.pfn(block.start))])]
    block = lone_block(m, "4K")
    return [Actor("hot remove", [m.memory.remove(block)])]
