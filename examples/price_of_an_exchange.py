"""What a 2M hugepage costs under each way of replacing its tail entries, and how many frames it gives back."""

import vmemmap

HUGEPAGES = 64
PAGES = 512  # base pages of a 2M hugepage, with 4K pages


def price(update):
    m = vmemmap.Machine(granule="4K", kernel="6.1", boot_memory="1G", mapping="basepages", update=update)
    pool = m.hugetlb["2M"]
    pool.nr_hugepages = 1  # what only the first one costs
    before = m.counters
    pool.nr_hugepages += HUGEPAGES
    spent = {name: (m.counters[name] - before[name]) / HUGEPAGES for name in ("writes", "exchanges", "dsb", "tlbi")}
    spent["frames"] = PAGES - (m.counters.frames_used - before.frames_used) / HUGEPAGES
    return spent


for way in ("store", "swap", "clear-then-set", "bbm", "bbm-each"):
    print(f"{way:15}", "  ".join(f"{count:6.1f} {name}" for name, count in price(way).items()))
