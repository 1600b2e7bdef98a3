"""One page of a kdump-compressed dump, unpacked by the library of its method;
what comes out is never more than a block.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

__all__ = ["METHODS", "Unpackable", "unpack"]

METHODS: Final = {1: "zlib", 2: "lzo", 4: "snappy", 0x20: "zstd"}
"""``DUMP_DH_COMPRESSED_*`` of makedumpfile's ``diskdump_mod.h``."""


class Unpackable(Exception):
    """A page that cannot be unpacked, and why."""


def unpack(method: int, data: bytes, block_size: int) -> bytes:
    """The block that ``data`` was packed from.

    :raises Unpackable: the data are damaged, of another length, or the library for them is not installed.
    """
    name = METHODS.get(method)
    if name is None:
        raise Unpackable(
            f"compression method {method:#x}: expected {', '.join(f'{n:#x} ({m})' for n, m in METHODS.items())}"
        )
    try:
        block = _UNPACKERS[name](data, block_size)
    except ImportError:
        raise Unpackable(
            f"compressed by {name}: unpacking takes {_PACKAGES[name]}, which is not installed: "
            "pip install 'vmemmap[vmcore]'"
        ) from None
    except (zlib.error, ValueError, MemoryError, RuntimeError, OSError) as error:
        raise Unpackable(f"damaged {name} data: {ascii(str(error))[1:-1][:80]}") from error
    except Exception as error:  # each library has exceptions of its own, derived from Exception
        raise Unpackable(f"damaged {name} data ({type(error).__name__})") from error
    if len(block) != block_size:
        raise Unpackable(f"{name} data of {len(block):,} bytes: expected the block of {block_size:,}")
    return block


def _zlib(data: bytes, block_size: int) -> bytes:
    return zlib.decompressobj().decompress(data, block_size + 1)


def _lzo(data: bytes, block_size: int) -> bytes:
    # The library has no limit, but LZO packs at most 1:255 and a page's data are at most two blocks.
    return import_module("lzallright").LZOCompressor.decompress(data, output_size_hint=block_size)


def _snappy(data: bytes, block_size: int) -> bytes:
    snappy: Any = import_module("cramjam").snappy
    claimed = snappy.decompress_raw_len(data)
    if claimed > block_size:
        raise ValueError(f"claims {claimed:,} bytes")
    return bytes(snappy.decompress_raw(data))


def _zstd(data: bytes, block_size: int) -> bytes:
    # A stream: of a whole frame the library would allocate what its header claims.
    with import_module("zstandard").ZstdDecompressor().stream_reader(data) as reader:
        return reader.read(block_size + 1)


_UNPACKERS: Final[dict[str, Callable[[bytes, int], bytes]]] = {
    "zlib": _zlib,
    "lzo": _lzo,
    "snappy": _snappy,
    "zstd": _zstd,
}
_PACKAGES: Final = {"lzo": "lzallright", "snappy": "cramjam", "zstd": "zstandard"}
