"""One question, every value of a policy: which way of splitting a vmemmap block survives a PFN walker beside it?"""

import vmemmap


def split_beside_a_walker(m):
    block = m.memory.add("128M")
    m.setup(block, m.memory.online(block))
    hvo = vmemmap.Actor("HVO", [m.hugetlb["2M"].allocate(m.pfn(block.start))])
    return [hvo, vmemmap.Actor("PFN walker", [m.tail_walk(block)])]


for value, what in vmemmap.policies()["split"].items():
    found = vmemmap.explore(split_beside_a_walker, policies={"split": value, "linear-map": "blocks"}, budget="20s")
    print(f"split={value}: {found.words}")
    print(f"    {what}")
