"""Files: those that travel with the package, and writing so that nothing is left half-written."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from neuflow.errors import InputError

_PACKAGE = Path(__file__).resolve().parent


def data_path(name: str) -> Path:
    """Return where ``rtl/...`` or ``sim/...`` lies: in an installed wheel, or in the checkout."""
    for root in (_PACKAGE / "_data", _PACKAGE.parent):
        if (root / name).is_file():
            return root / name
    raise FileNotFoundError(f"{name} is neither in the package nor in the checkout")


def read_text(name: str) -> str:
    """Return the text of a file that travels with the package."""
    return data_path(name).read_text(encoding="utf-8")


def can_write(directory: Path) -> bool:
    """Tell whether files can be made in ``directory``: by making one, for rights do not say it all."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def write_atomic(path: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write a file beside ``path``, then rename it; on any failure remove it."""
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"{path}: directory {path.parent} does not exist; make it first")
    if path.is_dir():
        raise InputError(f"{path} is a directory; name a file")
    # The suffix stays last: writers such as NumPy and Matplotlib choose the format by it.
    beside = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        fill(beside)
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def staged(directory: Path) -> Iterator[Path]:
    """Yield a place beside ``directory``'s files; what lies there at the end moves in, all or nothing.

    ``directory`` is made where it is missing. Raises InputError where it cannot be written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".") as work:
            place = Path(work)
            yield place
            for path in sorted(place.iterdir()):
                os.replace(path, directory / path.name)
    except OSError as error:
        raise InputError(f"{directory}: cannot be written: {error.strerror or error}") from None


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with line ends as they are, all or nothing."""
    write_atomic(path, lambda beside: _fill(beside, text.encode()))


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes, all or nothing."""
    write_atomic(path, lambda beside: _fill(beside, data))


def _fill(path: Path, data: bytes) -> None:
    path.write_bytes(data)
