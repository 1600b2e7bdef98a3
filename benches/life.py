"""The life of a large machine, line by line with time and memory: boot, hugepages optimised in batches, dumped,
checked, saved, restored, freed. The machine that is restored takes the place of the one that was saved.

Without arguments a machine of 64 GiB, in seconds; `--memory 16T --hugepages 8000000` is the one of which
docs/performance.md tells. "CPU" is the time of this process alone, which others on the host do not lengthen; "resident"
is the most that it has had so far.
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
        self.began, self.spent = time.perf_counter(), time.process_time()
        print(f"{'':38} {'seconds':>9} {'all':>9} {'CPU':>9} {'resident':>12}")

    def step(self, name: str, work: Callable[[], object]) -> None:
        began, spent = time.perf_counter(), time.process_time()
        work()
        now, cpu = time.perf_counter(), time.process_time() - spent
        print(
            f"{name:38} {now - began:9.2f} {now - self.began:9.2f} {cpu:9.2f} {megabytes():9.0f} MiB",
            flush=True,
        )

    def end(self) -> None:
        print(f"{'all':38} {time.perf_counter() - self.began:9.2f} {'':9} {time.process_time() - self.spent:9.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", default="64G")
    parser.add_argument("--granule", default="4K")
    parser.add_argument("--va-bits", type=int, default=48)
    parser.add_argument("--size", default="2M", help="of a hugepage")
    parser.add_argument("--hugepages", type=int, default=30_000)
    parser.add_argument("--batch", type=int, default=65_536, help="pages by which the pool grows at once")
    parser.add_argument("--kernel", default="6.1")
    parser.add_argument("--folder", type=Path, help="where text and image are written for a while")
    parser.add_argument(
        "--skip", nargs="*", default=[], choices=("dump", "check", "save"), help="leave out these steps"
    )
    arguments = parser.parse_args()
    life, machines = Life(), list[Machine]()

    def boot() -> None:
        machines.append(
            Machine(
                granule=arguments.granule,
                va_bits=arguments.va_bits,
                kernel=arguments.kernel,
                boot_memory=parse_size(arguments.memory),
                hvo=True,
                mapping="basepages",
                linear_map="blocks",
                update="swap",
            )
        )

    life.step(f"boot {arguments.memory}, base pages", boot)
    size = arguments.size

    def grow() -> None:
        pool, reached = machines[0].hugetlb[size], 0
        while reached < arguments.hugepages:
            pool.nr_hugepages = min(reached + arguments.batch, arguments.hugepages)
            if pool.nr_hugepages == reached:
                break
            reached = pool.nr_hugepages

    def load(image: Path) -> None:
        machines.pop()
        machines.append(Machine.load(image, update="swap"))

    def free() -> None:
        machines[0].hugetlb[size].nr_hugepages = 0

    life.step(f"{arguments.hugepages} hugepages optimised", grow)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        text, image = Path(folder) / "kernel_page_tables", Path(folder) / "machine.npz"
        pages = machines[0].hugetlb[size].nr_hugepages
        if "dump" not in arguments.skip:
            life.step("text written", lambda: machines[0].write_ptdump(text))
            print(f"  {text.stat().st_size / 1e6:.0f} MB, {pages} hugepages")
            text.unlink()
        if "check" not in arguments.skip:
            life.step("checked", lambda: print(f"  {len(machines[0].check())} violations"))
        if "save" not in arguments.skip:
            life.step("saved", lambda: machines[0].save(image))
            print(f"  {image.stat().st_size / 1e6:.0f} MB")
            life.step("restored", lambda: load(image))
            print(f"  {machines[0].hugetlb[size].nr_hugepages} hugepages")
    life.step("freed", free)
    life.end()
    print(f"  {machines[0].hugetlb[size].nr_hugepages} hugepages left")


if __name__ == "__main__":
    main()
