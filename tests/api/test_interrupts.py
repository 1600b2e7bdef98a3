"""Operations and signals: Ctrl-C ends what waits, handlers run meanwhile, a process that was forked has threads too."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import pytest

from vmemmap import Machine
from vmemmap.machine.memory import MemoryRange


@contextmanager
def interrupted_after(seconds: float) -> Generator[None]:
    # To the main thread, as a terminal's would be: another thread's would not wake it.
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(seconds, signal.pthread_kill, [main, signal.SIGINT])
    timer.start()
    yield
    timer.join()


def machine_that_cannot_offline() -> tuple[Machine, MemoryRange]:
    """A block with a page in use, and no memory elsewhere for another one."""
    m = Machine(boot_memory="256M", hotplug_memory="128M")
    block = m.memory.add("128M")
    block.online()
    pool = m.hugetlb["2M"]
    pool.allocate(pfns=[block.start // m.granule])
    pool.get()
    pool.nr_hugepages = 1 << 20
    while pool.free_hugepages:
        pool.get()
    return m, block


def test_ctrl_c_ends_an_offline_that_waits() -> None:
    m, block = machine_that_cannot_offline()
    for _ in range(2):
        with interrupted_after(0.2), pytest.raises(KeyboardInterrupt):
            block.offline()
        assert block.state == "online"
    for head, _ in m.hugetlb["2M"].pages:
        m.hugetlb["2M"].put(head)
    block.offline()
    assert block.state == "offline"
    assert m.check() == []


def test_a_handler_may_run_operations_and_ends_one_by_an_exception() -> None:
    _, block = machine_that_cannot_offline()
    other = Machine(boot_memory="256M")

    class Enough(Exception):
        pass

    def handle(_number: int, _frame: FrameType | None) -> None:
        other.hugetlb["2M"].nr_hugepages += 1
        if other.hugetlb["2M"].nr_hugepages == 3:
            raise Enough

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        with pytest.raises(Enough):
            block.offline()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (block.state, other.hugetlb["2M"].nr_hugepages) == ("online", 3)


def test_an_operation_that_failed_leaves_the_next_one_alone() -> None:
    m = Machine(boot_memory="256M")
    for pages in (3, 1, 2):
        with pytest.raises(OSError) as failure:
            m.hugetlb["2M"].free(pfns=[1])
        assert failure.value.errno == errno.EBUSY
        m.hugetlb["2M"].nr_hugepages = pages
        assert m.hugetlb["2M"].nr_hugepages == pages


FORKED = """
import os, signal, vmemmap
m = vmemmap.Machine(boot_memory="256M")
pool = m.hugetlb["2M"]
pool.nr_hugepages = 2
if child := os.fork():
    _, status = os.waitpid(child, 0)
    pool.nr_hugepages = 1
    assert (os.waitstatus_to_exitcode(status), pool.nr_hugepages) == (0, 1)
else:
    signal.alarm(30)
    pool.nr_hugepages = 5
    vmemmap.Machine(boot_memory="256M").hugetlb["2M"].nr_hugepages = 1
    os._exit(pool.nr_hugepages != 5)
"""


def test_a_child_that_was_forked_runs_operations_too() -> None:
    # Warns of threads from 3.12 on: that is what is tried.
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED], check=True, timeout=60)
