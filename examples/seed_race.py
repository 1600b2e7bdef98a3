"""The question of May 2021: HugeTLB gives back struct pages while its neighbour is hot-removed and ptdump reads."""

import vmemmap

FAR = 0x40000000 + (512 << 30)  # with 64K pages 512 GiB of RAM share a PTE table: boot memory lives in another one


def beside_hot_remove(m):
    m.configure(granule="64K", hotplug=[(FAR, "1G")])
    a, b = m.memory.add("512M"), m.memory.add("512M")
    m.setup(a, m.memory.online(a), b)
    return [
        vmemmap.Actor("HVO", [m.hugetlb["512M"].allocate(m.pfn(a.start))]),
        vmemmap.Actor("hot remove", [m.memory.remove(b)]),
        vmemmap.Actor("ptdump", [m.ptdump(a)]),
    ]


for update in ("store", "clear-then-set"):
    way = vmemmap.Variant(update, "safe", (), {"linear-map": "blocks", "update": update}, "6.12")
    found = vmemmap.explore(beside_hot_remove, variant=way)
    print(f"{update}: {found.words}, in {len(found.trace)} steps shown" if found.trace else f"{update}: {found.words}")
