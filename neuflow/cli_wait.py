"""A word on stderr now and then while something lasts."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

PATIENCE = 10.0
"""Seconds without a word."""


@contextlib.contextmanager
def still(text: str) -> Iterator[None]:
    """Say ``text`` after ``PATIENCE``, and again each time that twice as long has gone by."""
    ended = threading.Event()

    def speak() -> None:
        begin, wait = time.monotonic(), PATIENCE
        while not ended.wait(wait):
            wait = time.monotonic() - begin
            print(f"{text} ({wait:.0f} s)", file=sys.stderr, flush=True)

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        ended.set()
        speaker.join()
