"""Litmus tests written in a notation of our own, as text in herd's format.

A thread is a list of steps, separated by ``;``::

    make x y     the descriptor of page x leads to the frame of y
    seal x y     the same, read-only
    break x      it is invalid
    tlbi x       TLBI VAAE1IS of page x; all: VMALLE1IS
    x = 1        a store
    x =: 1       a store-release
    x?           a load
    x?!          a load-acquire
    x?=          SWP with acquire
    x?@          a load whose address depends on the last load
    entry x?     a load of the descriptor of x
    dmb/dsb sy|ld|st, isb

``?`` and ``=`` count as accesses of the thread, from 0; the question is about them: ``1.0=1`` (what access 0 of thread
1 reads), ``1.0=x->y`` (a descriptor), ``1.1!`` (it faults), joined by ``&``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass
class Column:
    """Code of one thread, and what its registers begin with."""

    number: int
    lines: list[str]
    init: list[str]
    addresses: dict[str, str]
    results: list[str]
    places: list[str]
    free: int = 0

    def register(self) -> str:
        """A register that nobody has."""
        self.free += 1
        return str(self.free - 1)

    def address(self, of: str) -> str:
        """The register that holds that address."""
        if of not in self.addresses:
            self.addresses[of] = self.register()
            self.init.append(f"{self.number}:X{self.addresses[of]}={of}")
        return self.addresses[of]


def _access(column: Column, code: str, place: str, result: str) -> None:
    column.lines.append(f"L{len(column.results)}: {code}")
    column.results.append(result)
    column.places.append(place)


def _descriptor(column: Column, literal: str) -> str:
    register = column.register()
    column.init.append(f"{column.number}:X{register}={literal}")
    return register


def _step(column: Column, step: str) -> None:
    words = step.split()
    match words:
        case ["dmb" | "dsb" as barrier, domain]:
            column.lines.append(f"{barrier.upper()} {domain.upper()}")
        case ["isb"]:
            column.lines.append("ISB")
        case ["tlbi", "all"]:
            column.lines.append("TLBI VMALLE1IS")
        case ["tlbi", page]:
            number = column.register()
            column.lines += [f"LSR X{number},X{column.address(page)},#12", f"TLBI VAAE1IS,X{number}"]
        case ["make" | "seal" as how, page, frame]:
            dirty = ", db:0" if how == "seal" else ""
            value = _descriptor(column, f"(oa:PA({frame}){dirty})")
            column.lines.append(f"STR X{value},[X{column.address(f'PTE({page})')}]")
        case ["break", page]:
            value = _descriptor(column, f"(oa:PA({page}), valid:0)")
            column.lines.append(f"STR X{value},[X{column.address(f'PTE({page})')}]")
        case ["entry", load]:
            page, result = load.removesuffix("?"), column.register()
            _access(column, f"LDR X{result},[X{column.address(f'PTE({page})')}]", "", result)
        case [variable, "=" | "=:" as how, value]:
            source, at = column.register(), column.address(variable)
            column.lines.append(f"MOV W{source},#{value}")
            _access(column, f"{'STR' if how == '=' else 'STLR'} W{source},[X{at}]", variable, source)
        case [load]:
            found = re.fullmatch(r"(\w+)\?([!=@]?)", load)
            assert found is not None, step
            variable, how = found.groups()
            at, result = column.address(variable), column.register()
            if how == "@":
                zero, last = column.register(), column.results[-1]
                column.lines.append(f"EOR W{zero},W{last},W{last}")
                code = f"LDR W{result},[X{at},W{zero},SXTW]"
            elif how == "=":
                code = f"SWPA WZR,W{result},[X{at}]"
            else:
                code = f"{'LDAR' if how else 'LDR'} W{result},[X{at}]"
            _access(column, code, variable, result)
        case _:
            raise AssertionError(step)


def _question(columns: list[Column], question: str) -> str:
    parts: list[str] = []
    for part in question.split("&"):
        found = re.fullmatch(r"\s*(\d)\.(\d)(!|=(\w+)(?:->(\w+))?)\s*", part)
        assert found is not None, part
        thread, access, what, value, frame = found.groups()
        column = columns[int(thread)]
        if what == "!":
            parts.append(f"fault(P{thread}:L{access},{column.places[int(access)]})")
        else:
            shown = value if frame is None else f"(oa:PA({frame}))"
            parts.append(f"{thread}:X{column.results[int(access)]}={shown}")
    return " /\\ ".join(parts)


def text(name: str, threads: list[str], question: str, *, broken: str = "", values: str = "") -> str:
    """The test. Pages in ``broken`` begin invalid; ``values`` are initial values, ``y=1 z=2``."""
    columns = [Column(n, [], [], {}, [], []) for n in range(len(threads))]
    for column, steps in zip(columns, threads, strict=True):
        for step in steps.split(";"):
            if step.strip():
                _step(column, step.strip())
    asked = _question(columns, question)
    init = [*values.split(), *(f"[PTE({page})]=(oa:PA({page}), valid:0)" for page in broken.split())]
    init += [entry for column in columns for entry in column.init]
    height = max(len(column.lines) for column in columns)
    rows = [[c.lines[i] if i < len(c.lines) else "" for c in columns] for i in range(height)]
    head = " | ".join(f"P{c.number}" for c in columns)
    body = "\n".join(" | ".join(row) + " ;" for row in rows)
    return (
        f"AArch64 {name}\n{{\n"
        + "\n".join(f"{entry};" for entry in init)
        + f"\n}}\n{head} ;\n{body}\nexists ({asked})\n"
    )
