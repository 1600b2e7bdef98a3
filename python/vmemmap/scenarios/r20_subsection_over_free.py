"""R20: the removal of one device frees the vmemmap block that maps the struct pages of another.

==== ================================================== ==========================================
step first device (2 MiB)                               second device, in the same 128 MiB section
==== ================================================== ==========================================
1    added: one PMD block for the *whole* section
2                                                       added: the entry is there, nothing to do
3    removed: `pmd_clear`, TLBI, the block is freed
4                                                       looks at a struct page: no translation
==== ================================================== ==========================================

Since ba72b4c8cf60 parts of a section (2 MiB) can be added; d4234d131b0a maps those by pages, which are 8 for each part
at 4K. Serial, hence also without a second CPU: `serial` removes one device after the other.

With 16K and 64K pages a part is half of a vmemmap page and a thirty-second of one. Two parts then share a *page*, which
the removal of the first frees. This is derived from reading `unmap_hotplug_range` and `vmemmap_pte_populate`, in which
no guard was found; whether real users get there was not traced, and no report is known. (kernel-semantics §2.3, doubt
2.)
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import Setup

_HOLE = ("I2",)
_OLD = {"mapping": "blocks-for-parts"}
PART = 2 << 20
"""Bytes of a sub-section."""


@scenario(
    title="two devices in one section: the removal of one takes away the struct pages of the other",
    corpus="R20",
    sources=[
        "d4234d131b0a arm64: mm: Populate vmemmap at the page level if not section aligned",
        "https://lore.kernel.org/all/20250217092907.3474806-1-quic_zhenhuah@quicinc.com/ (v7)",
        "derived, unconfirmed, for 16K and 64K: kernel-semantics §2.3, §13.2",
    ],
    judged=["I2", "I3", "I4", "I5", "I6", "I13"],
    variants=[
        Variant("4k-pages", "safe"),
        Variant("4k-pages-6.12", "safe", kernel="6.12"),
        Variant("4k-blocks", "violated", _HOLE, _OLD),
        Variant("4k-blocks-6.12", "violated", _HOLE, _OLD, "6.12"),
        Variant("4k-blocks-serial", "violated", _HOLE, _OLD, arguments={"serial": True}),
        Variant("4k-pages-serial", "safe", arguments={"serial": True}),
        Variant("4k-pages-add", "safe", arguments={"adds": True}),
        Variant("16k-one-page", "violated", _HOLE, arguments={"granule": "16K"}),
        Variant("16k-two-pages", "safe", arguments={"granule": "16K", "parts": 2}),
        Variant("64k-one-page", "violated", _HOLE, arguments={"granule": "64K"}),
        Variant("64k-two-pages", "safe", arguments={"granule": "64K", "parts": 32}),
    ],
    kernels={"2021": "4k-blocks", "*": "4k-pages"},
)
def r20_subsection_over_free(
    m: Setup, granule: str = "4K", parts: int = 1, serial: bool = False, adds: bool = False
) -> Sequence[Actor]:
    """Two devices of so many `parts`, one after the other in a section."""
    m.policies = {"linear-map": "blocks", **m.policies}
    m.configure(granule=granule)
    size = parts * PART
    first, second = m.hotplug[0][0], m.hotplug[0][0] + size
    m.setup(m.device_add(first, size), m.device_add(second, size))
    m.scope(window=f"one section: two devices of {size >> 20} MiB each, nothing else")
    if serial:
        return [Actor("devices", [m.device_remove(first, size), m.device_remove(second, size)])]
    use = Actor("user of the second", [m.device_use(m.pfn(second))])
    if adds:
        return [Actor("first device", [m.device_remove(first, size), m.device_add(first, size)]), use]
    return [Actor("removal of the first", [m.device_remove(first, size)]), use]
