"""``ESR_EL1`` of an abort, as the Arm ARM has it (ISS encoding for Data and Instruction Aborts)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Syndrome", "decode"]

_CLASSES: Final = {
    0x20: "instruction abort from EL0",
    0x21: "instruction abort, current EL",
    0x24: "data abort from EL0",
    0x25: "data abort, current EL",
}
_BY_LEVEL: Final = {0b0000: "address size", 0b0001: "translation", 0b0010: "access flag", 0b0011: "permission"}
_OTHERS: Final = {
    0b010000: ("external", None, "synchronous external abort"),
    0b010001: ("tag check", None, "synchronous tag check fault"),
    0b010011: ("external on walk", -1, "synchronous external abort on a table walk, level -1"),
    0b011000: ("parity", None, "synchronous parity or ECC error"),
    0b100001: ("alignment", None, "alignment fault"),
    0b101001: ("address size", -1, "level -1 address size fault"),
    0b101011: ("translation", -1, "level -1 translation fault"),
    0b110000: ("TLB conflict", None, "TLB conflict abort"),
    0b110001: ("unsupported update", None, "unsupported atomic hardware update fault"),
    0b110100: ("implementation", None, "implementation defined fault (lockdown)"),
    0b110101: ("implementation", None, "implementation defined fault (unsupported exclusive or atomic access)"),
}


@dataclass(frozen=True, slots=True)
class Syndrome:
    """An ESR taken apart."""

    value: int
    exception_class: int
    what: str
    """``data abort, current EL`` and so on; ``exception class 0x..`` if it is no abort."""
    abort: bool
    instruction: bool
    fault_status: int
    fault: str
    """``translation``, ``permission``, ``access flag``, ``address size``, ``TLB conflict`` and others; ``other`` if
    unknown."""
    level: int | None
    """Level of the table walk at which it faulted."""
    words: str
    write: bool | None
    """WnR; of a cache maintenance operation and of an instruction abort ``None``."""
    walk: bool
    """S1PTW: a fault of stage 2 on a table walk of stage 1."""
    address_valid: bool
    """FnV is clear: FAR holds the address."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON.

        Returns:
            The object that ``--json`` prints as ``syndrome``.
        """
        return {
            "esr": hex(self.value),
            "class": self.what,
            "fsc": self.fault_status,
            "fault": self.fault,
            "level": self.level,
            "words": self.words,
            "write": self.write,
            "s1ptw": self.walk,
            "far_valid": self.address_valid,
        }


def decode(esr: int) -> Syndrome:
    """What an ESR says.

    Args:
        esr: The value of the register.

    Returns:
        Its fields, and what they mean.
    """
    kind = esr >> 26 & 0x3F
    instruction, abort = kind in (0x20, 0x21), kind in _CLASSES
    status = esr & 0x3F
    if status in _OTHERS:
        fault, level, words = _OTHERS[status]
    elif status >> 2 in _BY_LEVEL:
        fault, level = _BY_LEVEL[status >> 2], status & 3
        words = f"level {level} {fault} fault"
    elif status >> 2 == 0b0101:
        fault, level, words = (
            "external on walk",
            status & 3,
            f"synchronous external abort on a table walk, level {status & 3}",
        )
    elif status >> 2 == 0b0111:
        fault, level, words = "parity on walk", status & 3, f"parity or ECC error on a table walk, level {status & 3}"
    else:
        fault, level, words = "other", None, f"fault status {status:#04x}"
    maintenance = bool(esr >> 8 & 1)
    return Syndrome(
        value=esr,
        exception_class=kind,
        what=_CLASSES.get(kind, f"exception class {kind:#04x}"),
        abort=abort,
        instruction=instruction,
        fault_status=status,
        fault=fault if abort else "other",
        level=level if abort else None,
        words=words if abort else "no abort of a memory access",
        write=None if instruction or maintenance or not abort else bool(esr >> 6 & 1),
        walk=bool(esr >> 7 & 1),
        address_valid=not esr >> 10 & 1,
    )
