"""A small document of the form that `vmemmap run` hands to the report: one row that held, one that fell."""

from __future__ import annotations

from typing import Any

VMEMMAP, SCAN = 0xFFFFFC0020000000, 0x0000000080440000


def _trace() -> list[dict[str, Any]]:
    def step(
        n: int,
        actor: str,
        op: str,
        at: int | None = None,
        old: int | None = None,
        new: int | None = None,
        note: str = "",
        place: str = "",
    ) -> dict[str, Any]:
        return {
            "place": place,
            "step": n,
            "cpu": 0 if actor == "HVO" else 1,
            "actor": actor,
            "op": op,
            "address": at,
            "old": old,
            "new": new,
            "note": note,
        }

    page, copy, table = 0x00E8000080000703, 0x00E0000081000783, 0x1000000080440003
    steps = [
        step(1, "HVO", "acquire init_mm.mmap_lock", note="hugetlb_vmemmap_optimize"),
        step(2, "HVO", "read", 0x80442000, table, None, "vmemmap_remap_range", f"pmd {VMEMMAP:#x}"),
    ]
    for i in range(4):
        at, pte = SCAN + 8 * i, f"pte {VMEMMAP + 0x10000 * i:#x}"
        steps += [
            step(len(steps) + 1, "HVO", "write", at, page + 0x10000 * i, 0, "vmemmap_remap_pte", pte),
            step(len(steps) + 2, "hot remove", "read", at, 0, None, "free_empty_pte_table", pte),
            step(len(steps) + 3, "HVO", "write", at, 0, copy, "vmemmap_remap_pte", pte),
        ]
    for op in ("write", "dsb ishst", "tlbi vaae1is", "dsb ish", "free"):
        at = {"write": 0x80442000, "free": SCAN}.get(op)
        place = {
            "write": f"pmd {VMEMMAP:#x}",
            "tlbi vaae1is": f"va {VMEMMAP:#x}",
            "free": f"frame {SCAN & ~0xFFF:#x}",
        }.get(op, "")
        at = VMEMMAP if op.startswith("tlbi") else at
        steps.append(
            step(
                len(steps) + 1,
                "hot remove",
                op,
                at,
                table if op == "write" else None,
                0 if op == "write" else None,
                "free_empty_pte_table" + (": I6 violated: table freed in use" if op == "free" else ""),
                place,
            )
        )
    return steps


def _row(policy: str, **other: Any) -> dict[str, Any]:
    held = {"state": "held", "invariants": [], "steps": None}
    return {
        "order": 0,
        "group": "The update of a hugepage's entries",
        "layout": "64K",
        "policy": policy,
        "kernel": "6.12",
        "cells": {
            "table freed in use": held,
            "hole": held,
            "break-before-make": {"state": "violated", "invariants": ["I19"], "steps": 9},
        },
        "cost": {"tlbi": 8, "dsb": 17, "stores": 8, "frames_saved": 7},
        "words": "I1 I2 I6 held, I19 violated",
        "as_expected": True,
        "expected": "I19",
        "scope": "64K pages, 8192 entries per table",
        "command": "vmemmap explore R35 --variant 64k-store-6.12",
        "result": {
            "executions": 12,
            "states": 40,
            "seconds": 0.01,
            "exhaustive": True,
            "shortest": False,
            "violation": None,
            "trace": None,
        },
        **other,
    }


def document() -> dict[str, Any]:
    trace = _trace()
    violation = {
        "invariant": "I6",
        "actor": "hot remove",
        "step": trace[-1]["step"],
        "address": SCAN,
        "message": "the table at 0x80440000 is freed while entry 0 is in use <&>",
    }
    fell = {
        "executions": 1200,
        "states": 4000,
        "seconds": 0.4,
        "exhaustive": True,
        "shortest": True,
        "violation": violation,
        "trace": trace,
    }
    cells = {
        "table freed in use": {"state": "violated", "invariants": ["I6"], "steps": len(trace)},
        "hole": {"state": "not judged", "invariants": [], "steps": None},
        "break-before-make": {"state": "held", "invariants": [], "steps": None},
    }
    return {
        "version": "0.1.0",
        "created": "2026-11-24 01:00 UTC",
        "question": "Can the struct page array be remapped beside memory hot remove?",
        "answer": "The acceptance test held.",
        "caveat": "Not every row is a kernel: some are schemes that were proposed.",
        "held": True,
        "columns": [
            {"name": "table freed in use", "invariants": ["I6", "I1"]},
            {"name": "hole", "invariants": ["I2"]},
            {"name": "break-before-make", "invariants": ["I19"]},
        ],
        "cost_note": "Counted on the native machine, for one hugepage.",
        "walker_note": "A walker holds no lock.",
        "limits": "What is not explored: docs/limits.md.",
        "input": {"name": "E2.npz", "facts": [["kernel", "6.1.192"], ["granule", "4K"]]},
        "acceptance": {
            "words": "It held for 10 s.",
            "seconds": 10.0,
            "actors": [{"name": "HugeTLB", "cpu": 0, "operations": 123456}],
            "latency_ns": {"hugetlb_alloc": {"p50": 900, "p99": 4100, "p999": 12000, "max": 2_500_000}},
            "facts": [["violations", "0"]],
            "violations": [],
        },
        "modelled": {
            "machine": "arm64",
            "about": "assumed",
            "cpus": 64,
            "page": "hugepage",
            "rows": [
                {"group": "4K pages", "label": "update=store, 6.1", "ns": 20_000.0, "frames_saved": 6},
                {"group": "4K pages", "label": "update=bbm, 6.1", "ns": 40_000.0, "frames_saved": 6},
            ],
        },
        "rows": [
            _row("update=store"),
            _row("update=clear-then-set-each", cells=cells, result=fell, words="I6 violated", cost=None),
        ],
    }
