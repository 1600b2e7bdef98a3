"""What the core answers about a live machine."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["BlockState", "PoolCounts", "RestViolation", "SeenViolation"]


class PoolCounts(TypedDict):
    """Counters of one hugepage pool, in hugepages."""

    nr: int
    free: int
    resv: int
    surplus: int
    overcommit: int


class BlockState(TypedDict):
    """One memory block: addresses and sizes in bytes."""

    number: int
    start: int
    size: int
    state: str
    zone: str | None


class RestViolation(TypedDict):
    """An invariant that is violated while nothing runs."""

    invariant: str
    address: int | None
    message: str


class SeenViolation(RestViolation):
    """An invariant that a checked access found violated."""

    actor: str
    step: int
