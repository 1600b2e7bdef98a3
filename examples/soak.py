"""A soak: gigantic pages exchange their vmemmap entries beside a block that comes and goes, readers beside them.

For hours: vmemmap stress examples/soak.py --seconds 36000 --snapshots soak.jsonl
"""

import vmemmap

SWAP = vmemmap.Variant("swap", "safe", (), {"update": "swap"}, "6.12")


@vmemmap.scenario(
    title="hugepages, hotplug and ptdump without an end",
    variants=[SWAP],
    sources=["the acceptance test of May 2021"],
    judged=["I1", "I2", "I3", "I6", "I7", "I8", "I11", "I13", "I14", "I17", "I18", "I24", "I25"],
)
def soak(m):
    m.configure(granule="4K", boot_memory="4G", hotplug=[(8 << 30, "1G")])
    block = m.memory.add("128M")
    gigantic, large = m.hugetlb["1G"], m.hugetlb["2M"]
    return [
        vmemmap.Actor("1G", [gigantic.allocate(), gigantic.free()]),
        vmemmap.Actor("2M", [large.resize(64), large.resize(0)]),
        vmemmap.Actor("hotplug", [block, m.memory.online(block), m.memory.offline(block), m.memory.remove(block)]),
        vmemmap.Actor("ptdump", [m.ptdump(block)]),
    ]


if __name__ == "__main__":
    found = vmemmap.stress(soak, seconds=2.0)
    print("violations:", len(found.violations))
