"""Explorations side by side, under one budget; whoever stops listening ends those that still run."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from typing import TypeVar

from .exploration import Result, explore
from .scenario import Scenario, Variant

__all__ = ["Search", "as_finished"]

T = TypeVar("T")
R = TypeVar("R")

Search = Callable[[Scenario, Variant], Result]
"""Explores a variant with what is left of the budget, a second at least."""


def as_finished(
    items: Iterable[T],
    one: Callable[[T, Search], R],
    *,
    seconds: float = math.inf,
    each: float = math.inf,
    shorten: float | None = None,
    workers: int | None = None,
) -> Generator[R, None, None]:
    """Call `one` for each item, some at a time. `seconds` or `each` bounds the explorations.

    Args:
        items: What is asked, in the order in which it is begun.
        one: Answers one item, exploring by the `Search` that it is given.
        seconds: Budget of all explorations together.
        each: Budget of one.
        shorten: As `vmemmap.explore` takes it.
        workers: How many at a time; as many as there are CPUs by default.

    Yields:
        Answers, in the order in which they are there.
    """
    deadline = time.monotonic() + seconds
    stop = threading.Event()

    def look(*_: int) -> None:
        if stop.is_set():
            raise KeyboardInterrupt

    def search(scenario: Scenario, variant: Variant) -> Result:
        if stop.is_set():
            raise CancelledError
        budget = min(each, max(1.0, deadline - time.monotonic()))
        found = explore(scenario, variant=variant, budget=budget, shorten=shorten, progress=look)
        if stop.is_set():
            raise CancelledError
        return found

    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    futures = [pool.submit(one, item, search) for item in items]
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        # Closed before its end, on Ctrl-C above all: what was found is there at once, and nobody waits for the rest.
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
