"""What a hugepage costs to allocate and to free, by the size of the pool, and when the pool was filled and emptied
before: nanoseconds of this process's CPU time for each page, and how they compare with the first.

Without arguments pools of 1,000 and 10,000 pages and three cycles, in seconds.
"""

from __future__ import annotations

import argparse
import time

from vmemmap import Machine


def seconds_of(pool: object, pages: int) -> float:
    """Of setting `nr_hugepages`, in which nobody else's use of the host shows."""
    began = time.process_time()
    pool.nr_hugepages = pages  # type: ignore[attr-defined]
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, nargs="*", default=[1_000, 10_000], help="sizes of the pool, in 2M pages")
    parser.add_argument("--cycles", type=int, default=3, help="how often each pool is filled and emptied")
    parser.add_argument("--kernel", default="6.1")
    arguments = parser.parse_args()
    print(f"{'pages':>9} {'cycle':>5} {'allocate':>10} {'free':>10} {'÷ first':>8} {'free ÷ allocate':>16}")
    for pages in arguments.pages:
        machine = Machine(
            kernel=arguments.kernel,
            # Its struct pages too, and some room.
            boot_memory=max(pages * 17 // 16, 512) << 21,
            mapping="basepages",
            linear_map="blocks",
            update="swap",
        )
        pool, first = machine.hugetlb["2M"], 0.0
        for cycle in range(1, arguments.cycles + 1):
            grown = seconds_of(pool, pages)
            reached = pool.nr_hugepages
            freed = seconds_of(pool, 0)
            if reached != pages or pool.nr_hugepages:
                raise SystemExit(f"{reached} pages of {pages} were allocated, {pool.nr_hugepages} were left")
            first = first or grown
            each, back = (spent * 1e9 / pages for spent in (grown, freed))
            print(f"{pages:9} {cycle:5} {each:7.0f} ns {back:7.0f} ns {grown / first:8.2f} {freed / grown:16.2f}")


if __name__ == "__main__":
    main()
