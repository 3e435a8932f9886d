"""Memory of the interpreter: words, and for each word its write and when that was fenced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuflow.cycle.compiled import kernel

Packet = NDArray[np.signedinteger[Any]]
Walk = tuple[int, ...]
"""Base, run, and count and step of each level from the innermost: the words of a descriptor."""
_NEVER = -2
_HOST = -1
_UNFENCED = 1 << 62
_FINE, _UNWRITTEN, _HAZARD, _NOT_WRITABLE, _TWICE = range(5)


class DeviceFault(Exception):
    """The device section asks for something that the machine would not do, or not do safely.

    Raised by the interpreter only: it is a bug of the compiler, never of a user.
    """


def words_named(fields: Mapping[str, int]) -> int:
    """Return how many words a READ or WRITE names."""
    return fields["run"] * fields["count0"] * fields["count1"] * fields["count2"]


class Memory:
    """``words`` words. Times count instructions; a read sees a write only behind its fence.

    The first of them are ``fixed``, and are never written.
    """

    def __init__(self, fixed: NDArray[np.int16], words: int) -> None:
        self.data = np.zeros(words, np.int16)
        self.data[: len(fixed)] = fixed
        self.fixed = len(fixed)
        self.writer = np.full(words - self.fixed, _NEVER, np.int32)
        self.writable = np.zeros(words - self.fixed, bool)
        self.writes = 0
        self.fenced = np.zeros(1024, np.int64)

    def load(self, at: int, words: NDArray[np.int16], holes: NDArray[np.bool_]) -> None:
        """Put what the host loads behind the fixed words; the program may write the ``holes`` in it."""
        self.data[at : at + len(words)] = words
        self.writer[at - self.fixed :][: len(words)] = np.where(holes, _NEVER, _HOST)
        self.writable[at - self.fixed :][: len(words)] = holes

    def forget(self, at: int, words: int) -> None:
        """Make a range writable and its contents unknown."""
        self.writer[at - self.fixed :][:words] = _NEVER
        self.writable[at - self.fixed :][:words] = True

    def read(self, fields: Mapping[str, int], time: int, origin: object) -> NDArray[np.int16]:
        """Return the packet of a READ that was sent at ``time``."""
        at, size, together = self._named(fields, origin)
        if together and at[0] + size <= self.fixed:
            return self.data[at[0] : at[0] + size]
        packet = np.empty(size, np.int16)
        fault, word = _read(self.data, self.writer, self.fenced, at, time, packet)
        if fault == _UNWRITTEN:
            raise DeviceFault(f"{origin}: reads word {word}, never written")
        if fault == _HAZARD:
            raise DeviceFault(f"{origin}: hazard, no fence since a write of word {word}")
        return packet

    def write(self, fields: Mapping[str, int], packet: Packet, origin: object) -> int:
        """Store the packet of a WRITE; return its number."""
        at, size, _ = self._named(fields, origin)
        if size != len(packet):
            raise DeviceFault(f"{origin}: names {size} words, the packet has {len(packet)}")
        if self.writes == len(self.fenced):
            self.fenced = np.append(self.fenced, np.zeros_like(self.fenced))
        number = self.writes
        self.fenced[number] = _UNFENCED
        self.writes += 1
        fault, word = _write(self.data, self.writer, self.writable, self.fenced, at, packet, number)
        if fault == _NOT_WRITABLE:
            raise DeviceFault(f"{origin}: word {word} is not the program's to write")
        if fault == _TWICE:
            raise DeviceFault(f"{origin}: writes a word twice")
        if fault == _HAZARD:
            raise DeviceFault(f"{origin}: hazard, overwrites words whose write is not fenced")
        return number

    def fence(self, writes: list[int], time: int) -> None:
        """Mark writes as done at ``time``."""
        self.fenced[writes] = time

    def _named(self, fields: Mapping[str, int], origin: object) -> tuple[Walk, int, bool]:
        """Return the words that a descriptor names, how many, and whether they lie together."""
        base, run = fields["base"], fields["run"]
        counts = fields["count0"], fields["count1"], fields["count2"]
        steps = fields["step0"], fields["step1"], fields["step2"]
        if min(run, *counts) < 1:
            raise DeviceFault(f"{origin}: a count of 0")
        size, low, high, together = run, base, base + run - 1, True
        for count, step in zip(counts, steps, strict=True):
            if count > 1:
                together = together and step == size
                low += min(0, (count - 1) * step)
                high += max(0, (count - 1) * step)
            size *= count
        if low < 0 or high >= len(self.data):
            raise DeviceFault(f"{origin}: address outside memory")
        if together:
            return (base, size, 1, 0, 1, 0, 1, 0), size, True
        return (
            (base, run, *[n for pair in zip(counts, steps, strict=True) for n in pair]),
            size,
            False,
        )


@kernel
def _read(data: Any, writer: Any, fenced: Any, walk: Any, time: int, packet: Any) -> Any:
    """Fill ``packet``; return a fault and the word that has it."""
    base, run, count0, step0, count1, step1, count2, step2 = walk
    fixed, n = len(data) - len(writer), 0
    for i2 in range(count2):
        for i1 in range(count1):
            for i0 in range(count0):
                at = base + i0 * step0 + i1 * step1 + i2 * step2
                for word in range(at, at + run):
                    by = writer[word - fixed] if word >= fixed else _HOST
                    if by == _NEVER:
                        return _UNWRITTEN, word
                    if by >= 0 and fenced[by] > time:
                        return _HAZARD, word
                    packet[n] = data[word]
                    n += 1
    return _FINE, 0


@kernel
def _write(
    data: Any, writer: Any, writable: Any, fenced: Any, walk: Any, packet: Any, number: int
) -> Any:
    """Store ``packet``; return a fault and the word that has it."""
    base, run, count0, step0, count1, step1, count2, step2 = walk
    fixed, n = len(data) - len(writer), 0
    for i2 in range(count2):
        for i1 in range(count1):
            for i0 in range(count0):
                at = base + i0 * step0 + i1 * step1 + i2 * step2
                for word in range(at, at + run):
                    if word < fixed or not writable[word - fixed]:
                        return _NOT_WRITABLE, word
                    by = writer[word - fixed]
                    if by == number:
                        return _TWICE, word
                    if by >= 0 and fenced[by] == _UNFENCED:
                        return _HAZARD, word
                    data[word] = packet[n]
                    writer[word - fixed] = number
                    n += 1
    return _FINE, 0
