"""The life of a large machine, line by line with time and memory: boot, hugepages optimised in batches, dumped,
checked, saved, restored, freed.

Without arguments a machine of 64 GiB, in seconds. "resident" is the most that the process has had so far.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from vmemmap import Machine
from vmemmap.spec import parse_size


def megabytes() -> float:
    """The most that was resident so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Life:
    """Prints a line for each step."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        print(f"{'':38} {'seconds':>9} {'all':>9} {'resident':>12}")

    def step(self, name: str, work: Callable[[], object]) -> None:
        began = time.perf_counter()
        work()
        now = time.perf_counter()
        print(f"{name:38} {now - began:9.2f} {now - self.began:9.2f} {megabytes():9.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", default="64G")
    parser.add_argument("--hugepages", type=int, default=30_000, help="2M pages")
    parser.add_argument("--batch", type=int, default=65_536, help="pages by which the pool grows at once")
    parser.add_argument("--kernel", default="6.1")
    parser.add_argument(
        "--skip", nargs="*", default=[], choices=("dump", "check", "save"), help="leave out these steps"
    )
    arguments = parser.parse_args()
    life, machines = Life(), []

    def boot() -> None:
        machines.append(
            Machine(
                granule="4K",
                va_bits=48,
                kernel=arguments.kernel,
                boot_memory=parse_size(arguments.memory),
                hvo=True,
                mapping="basepages",
                update="swap",
            )
        )

    life.step(f"boot {arguments.memory}, base pages", boot)
    machine = machines[0]
    pool = machine.hugetlb["2M"]

    def grow() -> None:
        reached = 0
        while reached < arguments.hugepages:
            target = min(reached + arguments.batch, arguments.hugepages)
            pool.nr_hugepages = target
            if pool.nr_hugepages == reached:
                break
            reached = pool.nr_hugepages

    life.step(f"{arguments.hugepages} hugepages optimised", grow)
    with tempfile.TemporaryDirectory() as folder:
        text, image = Path(folder) / "kernel_page_tables", Path(folder) / "machine.npz"
        if "dump" not in arguments.skip:
            life.step("text written", lambda: machine.write_ptdump(text))
            print(f"  {text.stat().st_size / 1e6:.0f} MB, {pool.nr_hugepages} hugepages")
        if "check" not in arguments.skip:
            life.step("checked", lambda: print(f"  {len(machine.check())} violations"))
        if "save" not in arguments.skip:
            life.step("saved", lambda: machine.save(image))
            print(f"  {image.stat().st_size / 1e6:.0f} MB")
            life.step("restored", lambda: Machine.load(image))

    def free() -> None:
        pool.nr_hugepages = 0

    life.step("freed", free)


if __name__ == "__main__":
    main()
