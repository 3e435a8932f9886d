"""Memory of the interpreter: words, and for each word its write and when that was fenced."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from neuflow.blocks.dma_model import word_addresses

Packet = NDArray[np.int64]
_NEVER = -2
_HOST = -1


class DeviceFault(Exception):
    """The device section asks for something that the machine would not do, or not do safely.

    Raised by the interpreter only: it is a bug of the compiler, never of a user.
    """


class Memory:
    """``words`` words. Times count instructions; a read sees a write only behind its fence."""

    def __init__(self, words: int) -> None:
        self.data = np.zeros(words, np.int16)
        self.writer = np.full(words, _NEVER, np.int32)
        self.writable = np.zeros(words, bool)
        self.fenced: list[float] = []

    def load(self, at: int, words: NDArray[np.int16], writable: bool = False) -> None:
        """Put what the host loads."""
        self.data[at : at + len(words)] = words
        self.writer[at : at + len(words)] = _HOST
        self.writable[at : at + len(words)] = writable

    def forget(self, at: int, words: int) -> None:
        """Make a range writable and its contents unknown."""
        self.writer[at : at + words] = _NEVER
        self.writable[at : at + words] = True

    def read(self, fields: Mapping[str, int], time: int, origin: str) -> Packet:
        """Return the packet of a READ that was sent at ``time``."""
        at = self._addresses(fields, origin)
        writers = self.writer[at]
        if (writers == _NEVER).any():
            raise DeviceFault(f"{origin}: reads word {at[writers == _NEVER][0]}, never written")
        last = np.unique(writers)
        late = [w for w in last if w >= 0 and self.fenced[w] > time]
        if late:
            word = at[np.isin(writers, late)][0]
            raise DeviceFault(f"{origin}: hazard, no fence since a write of word {word}")
        return self.data[at].astype(np.int64)

    def write(self, fields: Mapping[str, int], packet: Packet, origin: str) -> int:
        """Store the packet of a WRITE; return its number."""
        at = self._addresses(fields, origin)
        if len(at) != len(packet):
            raise DeviceFault(f"{origin}: names {len(at)} words, the packet has {len(packet)}")
        if not self.writable[at].all():
            word = at[~self.writable[at]][0]
            raise DeviceFault(f"{origin}: word {word} is not the program's to write")
        if len(np.unique(at)) != len(at):
            raise DeviceFault(f"{origin}: writes a word twice")
        before = self.writer[at]
        if any(w >= 0 and self.fenced[w] == np.inf for w in np.unique(before)):
            raise DeviceFault(f"{origin}: hazard, overwrites words whose write is not fenced")
        self.data[at] = packet
        self.writer[at] = len(self.fenced)
        self.fenced.append(np.inf)
        return len(self.fenced) - 1

    def fence(self, writes: list[int], time: int) -> None:
        """Mark writes as done at ``time``."""
        for number in writes:
            self.fenced[number] = time

    def _addresses(self, fields: Mapping[str, int], origin: str) -> NDArray[np.int64]:
        if min(fields[name] for name in ("run", "count0", "count1", "count2")) < 1:
            raise DeviceFault(f"{origin}: a count of 0")
        at = word_addresses(fields)
        if at.min() < 0 or at.max() >= len(self.data):
            raise DeviceFault(f"{origin}: address outside memory")
        return at
