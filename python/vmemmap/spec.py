"""What people type: sizes, hugepages, machines, policies, budgets. Each error is one line: what is wrong, where,
what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from .errors import SpecError

__all__ = [
    "GRANULES",
    "HUGEPAGE_SIZES",
    "KERNELS",
    "VA_BITS",
    "Budget",
    "MachineSpec",
    "check_hugepage_size",
    "check_machine",
    "check_policy",
    "check_whole_pages",
    "did_you_mean",
    "format_size",
    "parse_address",
    "parse_budget",
    "parse_granule",
    "parse_hugepages",
    "parse_kernel",
    "parse_machine",
    "parse_policy",
    "parse_size",
    "parse_switch",
    "parse_va_bits",
    "section_size",
]

KERNELS: Final = ("2021", "6.1", "6.12", "6.12.117", "7.2", "7.3")
"""Kernel behaviours, oldest first."""

GRANULES: Final = {"4K": 4096, "16K": 16384, "64K": 65536}
"""Translation granules by name, in bytes."""

VA_BITS: Final = {4096: (39, 48, 52), 16384: (36, 47, 48, 52), 65536: (42, 48, 52)}
"""VA sizes that arm64 Linux offers for each granule (``arch/arm64/Kconfig``)."""

_K: Final = 1024
_M: Final = _K * _K
_G: Final = _K * _M
HUGEPAGE_SIZES: Final = {
    4096: (64 * _K, 2 * _M, 32 * _M, _G),
    16384: (2 * _M, 32 * _M, _G),
    65536: (2 * _M, 512 * _M, 16 * _G),
}
"""HugeTLB page sizes of each granule in bytes, smallest first (``arch/arm64/mm/hugetlbpage.c: hugetlbpage_init``)."""

_UNITS: Final = "KMGTPE"
_MEMSTART_ALIGN: Final = 2 * _M
"""What every kernel rounds ``memstart_addr`` to at least; ``ARM64_MEMSTART_ALIGN`` is more."""
_SIZE: Final = re.compile(r"(0x[0-9a-fA-F]{1,16}|[0-9]{1,20})\s?(?:([kKmMgGtTpPeE])(?:i?[bB])?)?")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*")


def _shown(text: object) -> str:
    """``text`` for an error message: quoted, on one line, not longer than a line."""
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "...'"


def did_you_mean(name: str, known: Iterable[str], rest: str, brief: str | None = None) -> str:
    """What to put behind a name that there is not: ``: did you mean R6? (vmemmap list shows them)``.

    Args:
        name: What was typed.
        known: What there is.
        rest: What would be right.
        brief: What is said instead of it where a name is near.

    Returns:
        Text that begins with a colon.
    """
    from difflib import get_close_matches

    folded = {one.lower(): one for one in known}
    near = get_close_matches(name.lower(), folded, n=3) if len(name) <= 200 else []
    return f": did you mean {', '.join(folded[one] for one in near)}? ({brief or rest})" if near else f": {rest}"


def parse_size(size: int | str, what: str = "size") -> int:
    """Bytes of ``size``: an integer, or text such as ``4096``, ``0x1000``, ``256M``, ``1T`` (powers of 1024, as in the
    kernel's ``memparse``).

    ``what`` names the argument in the error.

    Args:
        size: Bytes, or text such as ``256M``.
        what: What it is, for the message.

    Returns:
        Bytes.

    Raises:
        SpecError: For anything else, and for what no 64-bit address space holds.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        value = size
    elif isinstance(size, str):
        match = _SIZE.fullmatch(size.strip()) if len(size) <= 64 else None
        if match is None:
            expected = f"bytes, or a number and one of {', '.join(_UNITS)}, like 256M"
            raise SpecError(f"{what} is {_shown(size)}: expected {expected}")
        digits, unit = match.groups()
        value = int(digits, 0) if digits.startswith("0x") else int(digits)
        if unit:
            value <<= 10 * (_UNITS.index(unit.upper()) + 1)
    else:
        raise SpecError(f"{what} is {_shown(size)}: expected an integer of bytes or text like 256M")
    if value < 0:
        raise SpecError(f"{what} is {value}: expected 0 or more bytes")
    if value >= 1 << 64:
        raise SpecError(f"{what} is {_shown(size)}: more than 64 bits can address")
    return value


def format_size(size: int) -> str:
    """``size`` in the largest unit that divides it: 2097152 → ``2M``; 0 → ``0``.

    Args:
        size: Bytes.

    Returns:
        Text such as ``2M``.
    """
    unit = ""
    if size:
        for letter in _UNITS:
            if size % _K:
                break
            size //= _K
            unit = letter
    return f"{size}{unit}"


def parse_address(value: int | str | None, what: str) -> int | None:
    """A physical address, as an integer or text like ``0x40000000``; `what` names it. ``memstart`` alone may be
    negative, also as the 64-bit number that a kernel prints.

    Args:
        value: A number, or text, also hexadecimal.
        what: What it is, for the message.

    Returns:
        The address; None for None.

    Raises:
        SpecError: No address, or none where a linear map begins.
    """
    if isinstance(value, str) and re.fullmatch(r"-?(0x[0-9a-fA-F]{1,16}|[0-9]{1,20})", value.strip()):
        value = int(value.strip(), 0)
    elif isinstance(value, str) and len(value) <= 64 and (match := _SIZE.fullmatch(value.strip())) and match[2]:
        # mem_map_base=2G: where memory begins is often a round size.
        value = parse_size(value, what)
    if value is None:
        return None
    low = -(1 << 63) if what == "memstart" else 0
    if what == "memstart" and isinstance(value, int) and 1 << 63 <= value < 1 << 64:
        value -= 1 << 64
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 1 << 52:
        shown = repr(value)[:40]
        raise SpecError(f"{what} is {shown}: expected a physical address of at most 52 bits, like 0x40000000")
    if what == "memstart" and value % _MEMSTART_ALIGN:
        raise SpecError(f"memstart is {value:#x}: expected a multiple of 2M, like 0x40000000")
    return value


def section_size(granule: int) -> int:
    """Bytes of a memory section (``SECTION_SIZE_BITS``).

    Kernel: ``SECTION_SIZE_BITS``, ``arch/arm64/include/asm/sparsemem.h``.

    Args:
        granule: Bytes of a base page.

    Returns:
        Bytes.
    """
    return 1 << (29 if granule == 65536 else 27)


def parse_granule(granule: int | str) -> int:
    """Bytes of a translation granule, given as ``4K``, ``16K``, ``64K`` or in bytes.

    Args:
        granule: Bytes of a base page, or text: ``4K``, ``16K``, ``64K``.

    Returns:
        Bytes.

    Raises:
        SpecError: No granule that arm64 has.
    """
    value = parse_size(granule, "granule")
    if value not in VA_BITS:
        raise SpecError(f"granule is {_shown(granule)}: expected 4K, 16K or 64K")
    return value


def parse_va_bits(va_bits: int | str) -> int:
    """Virtual address size in bits, as an integer or its digits; whether a granule has it: ``check_machine``.

    Args:
        va_bits: Bits of a kernel virtual address: 36, 39, 42, 47, 48 or 52.

    Returns:
        The number.

    Raises:
        SpecError: No such VA size.
    """
    if isinstance(va_bits, str) and re.fullmatch(r"[0-9]{1,3}", va_bits.strip()):
        return int(va_bits)
    if isinstance(va_bits, int) and not isinstance(va_bits, bool):
        return va_bits
    raise SpecError(f"va_bits is {_shown(va_bits)}: expected 36, 39, 42, 47, 48 or 52")


def parse_kernel(kernel: str) -> str:
    """Name of a kernel behaviour: ``2021``, ``6.1``, ``6.12``, ``6.12.117``, ``7.2`` or ``7.3``.

    Args:
        kernel: What was given.

    Returns:
        The same name.

    Raises:
        SpecError: No such kernel behaviour.
    """
    if kernel not in KERNELS:
        raise SpecError(f"kernel is {_shown(kernel)}: expected one of {', '.join(KERNELS)}{_nearest(kernel)}")
    return kernel


def _nearest(kernel: object) -> str:
    """The behaviours on either side of a release that is none of them, if it looks like a release."""

    def number(name: str) -> tuple[int, ...]:
        return tuple(int(part) for part in name.split("."))

    if not isinstance(kernel, str) or not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4}){1,2}", kernel):
        return ""
    releases = [name for name in KERNELS if "." in name]
    before = [name for name in releases if number(name) < number(kernel)][-1:]
    after = [name for name in releases if number(name) > number(kernel)][:1]
    return f"; nearest: {' and '.join(before + after)}"


def check_machine(granule: int, va_bits: int, kernel: str) -> None:
    """Raise ``SpecError`` unless that kernel had that granule with that VA size.

    52-bit virtual addresses with 4K or 16K pages need FEAT_LPA2, which Linux has used since 6.12.

    Args:
        granule: Bytes of a base page.
        va_bits: Bits of a kernel virtual address: 36, 39, 42, 47, 48 or 52.
        kernel: Kernel behaviour, by name: ``6.1``, ``6.12`` and so on.

    Raises:
        SpecError: That kernel did not have that granule with that VA size.
    """
    name = format_size(granule)
    known = VA_BITS[granule]
    if va_bits not in known:
        raise SpecError(f"va_bits is {va_bits}: with {name} pages arm64 Linux has {', '.join(map(str, known))}")
    if va_bits == 52 and granule != GRANULES["64K"] and kernel in ("2021", "6.1"):
        raise SpecError(
            f"va_bits is 52 with {name} pages under {kernel}: that needs LPA2, kernel 6.12 or later; "
            "or 64K pages, or 48 bits"
        )


def check_hugepage_size(size: int, granule: int) -> int:
    """``size`` in bytes if HugeTLB has pages of it with that granule; else ``SpecError`` with the sizes there are.

    Args:
        size: Bytes of one hugepage.
        granule: Bytes of a base page.

    Returns:
        The same size.

    Raises:
        SpecError: The granule has no hugepages of that size.
    """
    sizes = HUGEPAGE_SIZES[granule]
    if size not in sizes:
        names = ", ".join(map(format_size, sizes))
        raise SpecError(f"hugepage size is {format_size(size)}: with {format_size(granule)} pages there are {names}")
    return size


def parse_switch(value: object, what: str) -> bool:
    """A switch as the kernel's ``kstrtobool`` reads it: on, off, y, n, 1, 0, true, false.

    Args:
        value: A bool, or ``on``, ``off`` and the like.
        what: What it is, for the message.

    Returns:
        True or False.

    Raises:
        SpecError: Neither on nor off.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip().lower()
        if word in ("on", "y", "yes", "1", "true"):
            return True
        if word in ("off", "n", "no", "0", "false"):
            return False
    raise SpecError(f"{what} is {_shown(value)}: expected on or off")


def _text(text: object, what: str, example: str) -> str:
    if not isinstance(text, str) or len(text) > 4096:
        raise SpecError(f"{what} is {_shown(text)}: expected text like {example}")
    return text


def _pair(text: object, what: str, example: str) -> tuple[str, str]:
    key, equals, value = _text(text, what, example).partition("=")
    key, value = key.strip(), value.strip()
    if not (key and equals and value):
        raise SpecError(f"{what} {_shown(text)}: expected NAME=VALUE, like {example}")
    return key, value


def parse_hugepages(pools: Iterable[str], granule: int) -> dict[int, int]:
    """``["2M=400G", "1G=512G"]`` → bytes of memory per hugepage size in bytes, in the order given.

    Args:
        pools: Like ``2M=400G``.
        granule: Bytes of a base page.

    Returns:
        Hugepage size → bytes of memory in such pages.

    Raises:
        SpecError: For a size that the granule lacks, a size given twice, or memory that is not a whole
            number of such pages.
    """
    found: dict[int, int] = {}
    for text in pools:
        name, amount = _pair(text, "hugepages", "2M=400G")
        size = check_hugepage_size(parse_size(name, "hugepage size"), granule)
        if size in found:
            raise SpecError(f"hugepages {_shown(text)}: {format_size(size)} is given twice")
        found[size] = check_whole_pages(parse_size(amount, f"memory of {format_size(size)} hugepages"), size)
    return found


def check_whole_pages(amount: int, size: int) -> int:
    """``amount`` if it is a whole number of pages of ``size`` bytes; else ``SpecError``.

    Args:
        amount: Bytes.
        size: Bytes of one hugepage.

    Returns:
        The same number of bytes.

    Raises:
        SpecError: Not a whole number of pages.
    """
    if amount % size:
        name = format_size(size)
        raise SpecError(f"hugepages {name}={format_size(amount)}: not a whole number of {name} pages")
    return amount


def parse_policy(text: str, known: Mapping[str, Sequence[str]] | None = None) -> tuple[str, str]:
    """``update=bbm`` → ``("update", "bbm")``.

    With ``known`` (policy → its choices) the name and the value must be there; the error lists what is.

    Args:
        text: Like ``update=bbm``.
        known: Choices by policy.

    Returns:
        (policy, choice).

    Raises:
        SpecError: No such policy, or no such choice.
    """
    name, value = _pair(text, "policy", "update=bbm")
    if not _NAME.fullmatch(name):
        raise SpecError(f"policy {_shown(text)}: {_shown(name)} is no policy name")
    if known is not None:
        check_policy(name, value, known)
    return name, value


def check_policy(name: str, value: str, known: Mapping[str, Collection[str]]) -> None:
    """Refuse what is no policy, or no choice of it.

    Args:
        name: Of the policy.
        value: The choice.
        known: Choices by policy.

    Raises:
        SpecError: No such policy, or no such choice; the line names what is near, or all there is.
    """
    if name not in known:
        # A line has room for a few.
        brief = f"there are {len(known)} policies" if len(known) > 12 else None
        expected = did_you_mean(str(name), known, f"expected one of {', '.join(known)}", brief)
        raise SpecError(f"policy {_shown(name)} is unknown{expected}")
    if value not in known[name]:
        expected = did_you_mean(str(value), known[name], f"expected one of {', '.join(known[name])}")
        raise SpecError(f"policy {name} is {_shown(value)}{expected}")


@dataclass(frozen=True, slots=True)
class Budget:
    """How long a search may go on: executions, or seconds; exactly one is set."""

    executions: int | None = None
    seconds: float | None = None


def parse_budget(budget: int | float | str) -> Budget:
    """``5000`` or an ``int`` is executions; ``10s``, ``2m``, ``1h`` or a ``float`` is time.

    Args:
        budget: Executions as an integer; seconds as a float or text such as ``10s``.

    Returns:
        Executions, or seconds.

    Raises:
        SpecError: No budget.
    """
    if isinstance(budget, int) and not isinstance(budget, bool) and 0 < budget < 1 << 63:
        return Budget(executions=budget)
    if isinstance(budget, float) and 0.0 < budget < float("inf"):
        return Budget(seconds=budget)
    if isinstance(budget, str):
        match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s?([smh]?)", budget.strip())
        if match is not None:
            digits, unit = match.groups()
            if unit and float(digits) > 0:
                return Budget(seconds=float(digits) * {"s": 1, "m": 60, "h": 3600}[unit])
            if not unit and "." not in digits and int(digits) > 0:
                return Budget(executions=int(digits))
    raise SpecError(f"budget is {_shown(budget)}: expected a number of executions like 5000, or a time like 10s, 2m")


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """A machine to build, as ``--machine`` describes it. Sizes are bytes; ``hugepages`` is page size → number."""

    granule: int = 4096
    va_bits: int = 48
    kernel: str = "6.1"
    boot_memory: int = 4 << 30
    hotplug_memory: int = 0
    hvo: bool = True
    hugepages: Mapping[int, int] = field(default_factory=dict[int, int])
    policies: Mapping[str, str] = field(default_factory=dict[str, str])


_MACHINE_KEYS: Final = ("granule", "va_bits", "kernel", "boot_memory", "hotplug_memory", "hvo")


def parse_machine(text: str, policies: Mapping[str, Sequence[str]] | None = None) -> MachineSpec:
    """``granule=4K,va_bits=48,kernel=6.1,boot_memory=4G,hotplug_memory=4G,hvo=on,2M=64`` → ``MachineSpec``.

    A key that is a size is a pool and its value a number of pages. Other keys are policies, if ``policies`` (policy →
    its choices) has them. Everything has a default; the empty text is the default machine.

    Args:
        text: Like ``granule=4K,va_bits=48,boot_memory=4G,2M=64``.
        policies: Choices that each policy has.

    Returns:
        The specification.

    Raises:
        SpecError: No such machine; one line that says which key is wrong.
    """
    text = _text(text, "machine", "granule=4K,va_bits=48,2M=64")
    known = dict(policies or {})
    given: dict[str, str] = {}
    pools: dict[int, str] = {}
    for item in text.split(",") if text.strip() else ():
        name, value = _pair(item, "machine", "granule=4K")
        key = name.replace("-", "_")
        if name not in known and key in _MACHINE_KEYS:
            name = key
        if name in given:
            raise SpecError(f"machine: {name} is given twice")
        if name in _MACHINE_KEYS or name in known:
            given[name] = value
        elif _SIZE.fullmatch(name):
            size = parse_size(name, "hugepage size")
            if size in pools:
                raise SpecError(f"machine: {name} is given twice")
            pools[size] = value
        else:
            keys = (*_MACHINE_KEYS, *known)
            expected = did_you_mean(name, keys, f"expected {', '.join(keys)}, or a hugepage size")
            raise SpecError(f"machine: {_shown(name)} is unknown{expected}")
    default = MachineSpec()
    granule = parse_granule(given.get("granule", default.granule))
    va_bits = parse_va_bits(given.get("va_bits", default.va_bits))
    kernel = parse_kernel(given.get("kernel", default.kernel))
    check_machine(granule, va_bits, kernel)
    hugepages: dict[int, int] = {}
    for size, count in pools.items():
        check_hugepage_size(size, granule)
        if not re.fullmatch(r"[0-9]{1,12}", count):
            name = format_size(size)
            raise SpecError(f"machine: {name} is {_shown(count)}: expected a number of pages, like {name}=64")
        hugepages[size] = int(count)
    return MachineSpec(
        granule=granule,
        va_bits=va_bits,
        kernel=kernel,
        boot_memory=parse_size(given.get("boot_memory", default.boot_memory), "boot_memory"),
        hotplug_memory=parse_size(given.get("hotplug_memory", default.hotplug_memory), "hotplug_memory"),
        hvo=parse_switch(given.get("hvo", default.hvo), "hvo"),
        hugepages=hugepages,
        policies=dict(parse_policy(f"{name}={given[name]}", known) for name in known if name in given),
    )
