"""Table images (``.npz`` with a ``.json`` beside it) and ``kernel_page_tables`` text: read with suspicion, written
whole or not at all.

An image file is data from elsewhere: nothing in it is executed, and nothing is allocated that its size does not
justify.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal, Protocol, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from .. import saving
from ..errors import ImageError, SpecError
from .image_json import Description, describe, read_description
from .reading import is_pipe, opened, read_at_most

__all__ = ["VMCORE_MAGIC", "Image", "kind_of", "read_npz", "read_ptdump", "read_text", "write_npz"]

PTDUMP_LIMIT: Final = 1 << 30
"""Most bytes of text that are read as a dump."""

VMCORE_MAGIC: Final = (b"\x7fELF", b"KDUMP   ", b"makedump")
"""First bytes of ELF, of a kdump-compressed file, and of makedumpfile's flattened form of one."""

_HEAD: Final = 1 << 16
"""Bytes in which the first line of a text is looked for: people copy prompts and commands along."""

# What zipfile raises, some of it by accident, for archives that are none.
_BROKEN_ARCHIVE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    IndexError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)
# Arrays above this are stored as they are: packing half a gigabyte takes a minute, writing it a second.
_PACK_LIMIT: Final = 64 << 20
# Bytes of an array that are read, or copied and written, at a time.
_PIECE: Final = 1 << 22
# Deflate packs at most 1032:1, so a member that claims more than this is no honest member.
_MOST_PACKED: Final = 1100
# Array → its dimensions and the types it may have, as .npy spells them; the first is the one that is written.
_ARRAYS: Final = {"pa": (1, ("<u8",)), "level": (1, ("|u1", "|i1")), "words": (2, ("<u8",))}
_NPY_HEADER_LIMIT: Final = 4096
_NPY_HEADER: Final = re.compile(
    rb"\{'descr': '([A-Za-z0-9<>|=]{1,40})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:[0-9]{1,20}(?:, ?|(?=\))))*)\), ?\}\s*"
)


@dataclass(frozen=True, slots=True)
class Image:
    """Tables of one kernel as arrays, and what is known beside them. Not yet verified against each other: building a
    machine does that.
    """

    pa: NDArray[np.uint64]
    """Physical address of each table page, ascending."""
    level: NDArray[np.uint8]
    """Arm level of each; 255 is level -1."""
    words: NDArray[np.uint64]
    """The descriptors, one row for each table page."""
    description: Description


class Rows(Protocol):
    """What is written of an array: one that is never held as a whole gives rows as they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and words in each."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        ...

    def __getitem__(self, rows: slice, /) -> NDArray[Any]: ...


def kind_of(path: str | os.PathLike[str]) -> Literal["npz", "ptdump", "vmcore"]:
    """What a file is, by its first bytes: ``vmcore`` is ELF or kdump-compressed (makedumpfile's flattened form too).

    A text may begin with other lines than a dump's: one is looked for in its first 64K.

    Args:
        path: The file.

    Returns:
        ``npz``, ``ptdump`` or ``vmcore``.

    Raises:
        ImageError: If it cannot be read or is none of them, as raw physical memory is not.
    """
    from .. import _core

    path = Path(path)
    with opened(path) as file:
        head = file.read(_HEAD)
    if head.startswith(b"PK\x03\x04"):
        return "npz"
    if head.startswith((b"---[ ", b"0x")):
        return "ptdump"
    if head.startswith(VMCORE_MAGIC):
        return "vmcore"
    if _core.has_dump_line(head):
        return "ptdump"
    hint = " (empty)" if not head else "; give the .npz beside it" if path.suffix == ".json" else ""
    raise ImageError(f"{path}: neither a table image (.npz) nor kernel_page_tables text nor a vmcore{hint}")


def read_text(path: str | os.PathLike[str]) -> tuple[bytes, tuple[str, ...]]:
    """A ``kernel_page_tables`` text as the kernel printed it, and what stood around it.

    Args:
        path: The file.

    Returns:
        The text, and what was left out of the file or set right, in words.

    Raises:
        ImageError: It cannot be read, or a line is none of a dump's: its number, column, and what was expected.
    """
    from .. import _core

    path = Path(path)
    raw = read_at_most(path, PTDUMP_LIMIT, "kernel_page_tables")
    try:
        data, notes = _core.tidy_ptdump(raw)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    return data, tuple(notes)


def read_ptdump(path: str | os.PathLike[str]) -> str:
    """The same, the text alone.

    Args:
        path: The file.

    Returns:
        The text, without what stood around it.
    """
    return read_text(path)[0].decode("ascii")


def read_npz(path: str | os.PathLike[str], *, kernel: str | None = None) -> Image:
    """Read a table image and the JSON of the same name beside it.

    ``kernel`` replaces the behaviour that the JSON names.

    Args:
        path: The ``.npz``; its JSON is beside it.
        kernel: Kernel behaviour, instead of the one that the JSON names.

    Returns:
        Arrays ``pa`` (n), ``level`` (n) and ``words`` (n × descriptors in a table), and the description.

    Raises:
        ImageError: Missing, cut or broken files, arrays or keys that are missing or of the wrong type,
            sizes that the file cannot hold.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind != "npz":
        raise ImageError(
            f"{path}: {'a vmcore' if kind == 'vmcore' else 'kernel_page_tables text'}, not a table image (.npz)"
        )
    if is_pipe(path):
        raise ImageError(f"{path}: a table image (.npz) has its JSON beside it, and a pipe has none: give the file")
    description = read_description(path.with_suffix(".json"), kernel=kernel)
    arrays = _read_arrays(path)
    words = arrays["words"]
    tables, width = arrays["pa"].shape[0], description.granule // 8
    if not tables:
        raise ImageError(f"{path}: no table page at all")
    levels, rows = arrays["level"].shape[0], words.shape[0]
    if levels != tables or rows != tables:
        raise ImageError(f"{path}: pa has {tables} tables, level {levels}, words {rows}: expected the same number")
    if words.shape[1] != width:
        raise ImageError(
            f"{path}: words has {words.shape[1]} descriptors in a row, but granule {description.granule} "
            f"({path.stem}.json) has {width}: wrong granule"
        )
    return Image(
        pa=arrays["pa"], level=cast("Any", arrays["level"]).view(np.uint8), words=words, description=description
    )


def write_npz(path: str | os.PathLike[str], image: Image, *, state: str = "", note: str = "") -> None:
    """Write an image and its JSON, of the same form as a capture's.

    Each file appears whole or not at all (written beside, synced, renamed); on any error nothing is left behind.

    Args:
        path: The ``.npz`` to write; the JSON goes beside it.
        image: The tables and their description.
        state: What the JSON says of the state of the machine.
        note: A remark for the JSON.

    Raises:
        ImageError: A file cannot be written.
        SpecError: The image is none, or its parts do not fit together.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise SpecError(f"{path}: the name of a table image ends in .npz")
    described = describe(image.description, image.level, state=state or path.stem, note=note)
    with saving.whole(path.with_suffix(".json"), ImageError) as description, saving.whole(path, ImageError) as arrays:
        # Piece by piece: of tens of terabytes it lists half a million memory blocks.
        description.writelines(piece.encode() for piece in json.JSONEncoder(indent=1).iterencode(described))
        description.write(b"\n")
        _write_arrays(arrays, image)


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    with opened(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return {name: _read_array(path, archive, name) for name in _ARRAYS}
        except ImageError:
            raise
        except _BROKEN_ARCHIVE as error:
            reason = ascii(str(error) or type(error).__name__)[1:-1]
            raise ImageError(f"{path}: broken or cut archive: {reason[:120]}") from error


def _read_array(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    where = f"{path}: array {name}"
    try:
        member = archive.getinfo(f"{name}.npy")
    except KeyError:
        held = ", ".join(ascii(n.removesuffix(".npy"))[1:41] for n in archive.namelist()[:8]) or "nothing"
        raise ImageError(f"{where} is missing: expected pa, level and words, found {held}") from None
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ImageError(f"{where} is packed in a way that NumPy does not write")
    if member.file_size > member.compress_size * _MOST_PACKED + 4096:
        raise ImageError(
            f"{where} claims {member.file_size} bytes, which {member.compress_size} packed bytes cannot hold"
        )
    with archive.open(member) as stream:
        shape, dtype = _npy_header(where, stream, name)
        bytes_needed = dtype.itemsize
        for length in shape:
            bytes_needed *= length
        if bytes_needed > member.file_size:
            raise ImageError(f"{where} claims the shape {_shape(shape)}, but has {member.file_size} bytes")
        # Piece by piece into the array itself: of half a gigabyte there is one copy.
        data, read = np.empty(bytes_needed // dtype.itemsize, dtype=dtype), 0
        target = memoryview(cast("Any", data)).cast("B") if bytes_needed else memoryview(bytearray())
        while piece := stream.read(_PIECE):
            kept = piece[: bytes_needed - read]
            target[read : read + len(kept)] = kept
            read += len(piece)
            if read > bytes_needed:
                break
    if read != bytes_needed:
        raise ImageError(f"{where} has {read} bytes, but its shape {_shape(shape)} takes {bytes_needed}")
    return np.reshape(data, shape)


def _npy_header(where: str, stream: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array that follows. NumPy's own reader evaluates the header as Python; this does not.

    Raises:
        ImageError: It is no header that NumPy writes.
    """
    magic = stream.read(8)
    if len(magic) != 8 or magic[:6] != b"\x93NUMPY" or magic[6:] not in (b"\1\0", b"\2\0"):
        raise ImageError(f"{where} is no .npy of version 1.0 or 2.0")
    length = int.from_bytes(stream.read(2 if magic[6] == 1 else 4), "little")
    match = _NPY_HEADER.fullmatch(stream.read(length)) if length <= _NPY_HEADER_LIMIT else None
    if match is None:
        raise ImageError(f"{where} has no valid .npy header")
    dimensions, types = _ARRAYS[name]
    descr, fortran, lengths = (group.decode("ascii") for group in match.groups())
    shape = tuple(int(text) for text in lengths.replace(" ", "").split(",") if text)
    if len(shape) != dimensions:
        expected = "one dimension" if dimensions == 1 else f"{dimensions} dimensions"
        raise ImageError(f"{where} has the shape {_shape(shape)}: expected {expected}")
    if fortran == "True" and dimensions > 1:
        raise ImageError(f"{where} is stored by columns: expected one table page after the other")
    if descr not in types:
        raise ImageError(f"{where} is of type {descr}: expected {types[0]}")
    return shape, np.dtype(descr)


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _write_arrays(file: IO[bytes], image: Image) -> None:
    arrays: Mapping[str, Rows] = {"pa": image.pa, "level": image.level, "words": image.words}
    # Tables repeat so much that the fastest setting already packs them well.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1, allowZip64=True) as archive:
        for name, array in arrays.items():
            archive.compression = zipfile.ZIP_DEFLATED if array.nbytes <= _PACK_LIMIT else zipfile.ZIP_STORED
            # Opened by name a member has the time 1980-01-01: equal tables make equal files.
            with archive.open(f"{name}.npy", "w", force_zip64=array.nbytes >= 1 << 31) as stream:
                descr = _ARRAYS[name][1][0]
                header = {"descr": descr, "fortran_order": False, "shape": array.shape}
                npy.write_array_header_1_0(stream, header)
                rows = max(1, _PIECE * array.shape[0] // max(1, array.nbytes))
                for start in range(0, array.shape[0], rows):
                    stream.write(cast("Any", np.ascontiguousarray(array[start : start + rows], dtype=descr)))
