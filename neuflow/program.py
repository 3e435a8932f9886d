"""Program files, ``.nfp``: what a grid needs to run, and what a host and a reader need to know.

Little-endian. A header of 4 KB: magic, version, hash of the grid, length of the file, the table of
sections (name, offset, length, CRC-32 of each), zeros, and last its own CRC-32. Sections:

========  =========================================================================================
device    instructions, descriptors, packed weights: loaded verbatim at a multiple of 4 KB
host      JSON: grid, quantised graph, ports, layers, host operations, origins, mapping, schedule
arrays    the graph's arrays (weights and scales), each at a multiple of 8 bytes; named from host
========  =========================================================================================

Every byte of a file is covered by a CRC, and the same program always gives the same bytes.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from neuflow.errors import NeuflowError, ProgramError
from neuflow.files import write_bytes
from neuflow.grid import GridConfig
from neuflow.ir import Program
from neuflow.layout import PROGRAM_VERSION
from neuflow.program_host import from_host, to_host

MAGIC = b"neuflow\0"
PAGE = 4096
SECTIONS = ("device", "host", "arrays")

_HEAD = struct.Struct("<8sI32sQI")  # magic, version, grid hash, file length, sections
_ENTRY = struct.Struct("<16sQQI")  # name, offset, length, CRC-32
_CRC = struct.Struct("<I")


def to_bytes(program: Program) -> bytes:
    """Return the contents of a program's file."""
    host, arrays = to_host(program)
    sections = {"device": program.device, "host": host, "arrays": arrays}
    table, body = b"", b""
    for name in SECTIONS:
        data = _whole_pages(sections[name])
        table += _ENTRY.pack(name.encode(), PAGE + len(body), len(data), zlib.crc32(data))
        body += data
    grid_hash = bytes.fromhex(program.grid.hash())
    head = _HEAD.pack(MAGIC, PROGRAM_VERSION, grid_hash, PAGE + len(body), len(SECTIONS)) + table
    head = head.ljust(PAGE - _CRC.size, b"\0")
    return head + _CRC.pack(zlib.crc32(head)) + body


def save(program: Program, path: Path | str) -> None:
    """Write a program's file beside ``path``, then rename it there."""
    write_bytes(Path(path), to_bytes(program))


def load(path: Path | str, grid: GridConfig | None = None) -> Program:
    """Read a program's file; with ``grid`` given, refuse a program made for another one.

    Raises ``ProgramError`` for a file that is missing, damaged, of another version or grid.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ProgramError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        return from_bytes(data, grid)
    except ProgramError as error:
        raise ProgramError(f"{path}: {error}") from None


def from_bytes(data: bytes, grid: GridConfig | None = None) -> Program:
    """Inverse of :func:`to_bytes`; see :func:`load`."""
    grid_hash, sections = _open(data)
    if grid is not None and grid.hash() != grid_hash:
        raise ProgramError(f"made for another grid than {grid.name!r}; compile it again for that")
    try:
        program = from_host(sections["host"].rstrip(b"\0"), sections["arrays"], sections["device"])
    except (ValueError, KeyError, TypeError, IndexError, NeuflowError):
        raise ProgramError("its host section is not understood; compile it again") from None
    if program.grid.hash() != grid_hash:
        raise ProgramError("its grid is not the one its header names; compile it again")
    return program


def _open(data: bytes) -> tuple[str, dict[str, bytes]]:
    """Check header and sections; return the grid's hash and the sections by name."""
    if data[: len(MAGIC)] != MAGIC:
        raise ProgramError("not a neuflow program; give a .nfp file")
    if len(data) < PAGE:
        raise ProgramError("cut short; copy or compile it again")
    _, version, grid_hash, length, count = _HEAD.unpack_from(data)
    if version != PROGRAM_VERSION:
        raise ProgramError(
            f"program format {version}, this release reads {PROGRAM_VERSION}; compile it again"
        )
    head = data[: PAGE - _CRC.size]
    if _CRC.unpack_from(data, len(head))[0] != zlib.crc32(head) or count != len(SECTIONS):
        raise ProgramError("its header is damaged; copy or compile it again")
    if length != len(data):
        raise ProgramError(f"{len(data)} bytes long, not {length}; copy or compile it again")
    sections = {}
    for i in range(count):
        raw, offset, size, crc = _ENTRY.unpack_from(data, _HEAD.size + i * _ENTRY.size)
        name = raw.rstrip(b"\0").decode()
        sections[name] = data[offset : offset + size]
        if zlib.crc32(sections[name]) != crc:
            raise ProgramError(f"its section {name!r} is damaged; copy or compile it again")
    return grid_hash.hex(), sections


def _whole_pages(data: bytes) -> bytes:
    return data + bytes(-len(data) % PAGE)


__all__ = ["MAGIC", "SECTIONS", "from_bytes", "load", "save", "to_bytes"]
