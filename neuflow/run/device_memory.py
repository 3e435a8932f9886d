"""Memory of the interpreter: words, and for each word its write and when that was fenced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuflow.blocks.dma_model import word_addresses

Packet = NDArray[np.signedinteger[Any]]
Addresses = slice | NDArray[np.int64]
"""Those of a packet in order; a slice where they follow one another."""
_NEVER = -2
_HOST = -1


class DeviceFault(Exception):
    """The device section asks for something that the machine would not do, or not do safely.

    Raised by the interpreter only: it is a bug of the compiler, never of a user.
    """


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
        self.fenced: list[float] = []

    def load(self, at: int, words: NDArray[np.int16], holes: NDArray[np.bool_]) -> None:
        """Put what the host loads behind the fixed words; the program may write the ``holes`` in it."""
        self.data[at : at + len(words)] = words
        self.writer[at - self.fixed :][: len(words)] = np.where(holes, _NEVER, _HOST)
        self.writable[at - self.fixed :][: len(words)] = holes

    def forget(self, at: int, words: int) -> None:
        """Make a range writable and its contents unknown."""
        self.writer[at - self.fixed :][:words] = _NEVER
        self.writable[at - self.fixed :][:words] = True

    def read(self, fields: Mapping[str, int], time: int, origin: str) -> NDArray[np.int16]:
        """Return the packet of a READ that was sent at ``time``."""
        at = self._addresses(fields, origin)
        if isinstance(at, slice) and at.stop <= self.fixed:
            return self.data[at]
        writers = self._writers(at)
        if _NEVER in writers:
            word = next(w for w in self._each(at) if _NEVER in self._writers(slice(w, w + 1)))
            raise DeviceFault(f"{origin}: reads word {word}, never written")
        late = [w for w in writers if w >= 0 and self.fenced[w] > time]
        if late:
            word = next(w for w in self._each(at) if self._writers(slice(w, w + 1)) & set(late))
            raise DeviceFault(f"{origin}: hazard, no fence since a write of word {word}")
        return self.data[at].copy()

    def write(self, fields: Mapping[str, int], packet: Packet, origin: str) -> int:
        """Store the packet of a WRITE; return its number."""
        at = self._addresses(fields, origin)
        count = at.stop - at.start if isinstance(at, slice) else len(at)
        if count != len(packet):
            raise DeviceFault(f"{origin}: names {count} words, the packet has {len(packet)}")
        inside = self._behind_fixed(at)
        low = at.start if isinstance(at, slice) else at.min()
        if low < self.fixed or not self.writable[inside].all():
            word = next(w for w in self._each(at) if w < self.fixed or not self.writable[w - self.fixed])
            raise DeviceFault(f"{origin}: word {word} is not the program's to write")
        if not isinstance(at, slice) and (np.diff(at) <= 0).any() and len(np.unique(at)) != len(at):
            raise DeviceFault(f"{origin}: writes a word twice")
        if any(w >= 0 and self.fenced[w] == np.inf for w in self._writers(at)):
            raise DeviceFault(f"{origin}: hazard, overwrites words whose write is not fenced")
        self.data[at] = packet
        self.writer[inside] = len(self.fenced)
        self.fenced.append(np.inf)
        return len(self.fenced) - 1

    def fence(self, writes: list[int], time: int) -> None:
        """Mark writes as done at ``time``."""
        for number in writes:
            self.fenced[number] = time

    def _addresses(self, fields: Mapping[str, int], origin: str) -> Addresses:
        if min(fields[name] for name in ("run", "count0", "count1", "count2")) < 1:
            raise DeviceFault(f"{origin}: a count of 0")
        words = fields["run"]
        for level in range(3):
            if fields[f"count{level}"] > 1 and fields[f"step{level}"] != words:
                words = 0
                break
            words *= fields[f"count{level}"]
        at: Addresses
        if words:
            at = slice(fields["base"], fields["base"] + words)
            low, high = at.start, at.stop - 1
        else:
            at = word_addresses(fields)
            low, high = at.min(), at.max()
        if low < 0 or high >= len(self.data):
            raise DeviceFault(f"{origin}: address outside memory")
        return at

    def _behind_fixed(self, at: Addresses) -> Addresses:
        if isinstance(at, slice):
            return slice(at.start - self.fixed, at.stop - self.fixed)
        return at - self.fixed

    def _each(self, at: Addresses) -> Iterator[int]:
        """Yield the addresses one by one."""
        yield from range(at.start, at.stop) if isinstance(at, slice) else map(int, at)

    def _writers(self, at: Addresses) -> set[int]:
        """Return who wrote these words; what is fixed comes from the host."""
        if not isinstance(at, slice):
            fixed = at.min() < self.fixed
            found = self.writer[(at[at >= self.fixed] if fixed else at) - self.fixed]
        else:
            fixed = at.start < self.fixed
            found = self.writer[max(at.start - self.fixed, 0) : max(at.stop - self.fixed, 0)]
        # Words come in runs of one writer: few are left to be told apart.
        ends = np.flatnonzero(found[1:] != found[:-1])
        writers = set(np.unique(found[ends]).tolist())
        writers.update(found[-1:].tolist())
        return writers | {_HOST} if fixed else writers
