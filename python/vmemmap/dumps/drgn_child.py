"""The process that reads a dump with drgn; see ``drgn_reader``, which starts it.

Run as a file, not as a module of the package: it needs nothing of that and starts in a third of the time.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import IO, Any, Final

__all__ = ["ANSWER", "DATA", "ERROR", "NOTHING", "NO_DRGN", "REQUEST", "serve"]

REQUEST: Final = struct.Struct("<QQ")
"""Physical address and length."""
ANSWER: Final = struct.Struct("<Bq")
"""One of the kinds below, and how many bytes follow."""
DATA, NOTHING, ERROR, NO_DRGN = 0, 1, 2, 3


def serve(path: str, memory: int, vmcoreinfo: bytes) -> None:
    """The child: that the dump is open, then what is asked for on standard input until it ends. ``vmcoreinfo`` is for a
    dump that has none, or whose headers say too little; drgn takes it instead of the dump's own.
    """
    answers = sys.stdout.buffer
    try:
        import drgn
    except ImportError:
        return _send(answers, NO_DRGN)
    _limit(memory)
    try:
        # The platform too: QEMU's header of a kdump-compressed dump does not say it.
        platform = drgn.Platform(drgn.Architecture.AARCH64)
        program: Any = drgn.Program(platform, vmcoreinfo=vmcoreinfo) if vmcoreinfo else drgn.Program(platform)
        program.set_core_dump(path)
        _send(answers, DATA)
    except Exception as error:  # drgn raises plain Exception for what is wrong with a file
        return _send(answers, ERROR, _line(error))
    while len(request := sys.stdin.buffer.read(REQUEST.size)) == REQUEST.size:
        pa, length = REQUEST.unpack(request)
        try:
            _send(answers, DATA, program.read(pa, length, physical=True))
        except drgn.FaultError as error:
            _send(answers, NOTHING, _line(error))
        except Exception as error:
            _send(answers, ERROR, _line(error))
    return None


def _send(answers: IO[bytes], kind: int, data: bytes = b"") -> None:
    answers.write(ANSWER.pack(kind, len(data)) + data)
    answers.flush()


def _line(error: Exception) -> bytes:
    return ascii(str(error) or type(error).__name__)[1:-1][:200].encode()


def _limit(memory: int) -> None:
    """No core file, and so many bytes beside what is there now."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with Path("/proc/self/statm").open() as file:
        pages = int(file.read().split()[5])
    soft = pages * resource.getpagesize() + memory
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), sys.stdin.buffer.read(int(sys.argv[3])))
