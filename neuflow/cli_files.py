"""Files that a command names: looked at before the work is done, read, and written."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuflow import files
from neuflow.errors import InputError

if TYPE_CHECKING:
    from neuflow.api import Program


def _path(name: str) -> Path:
    """Return a name's path; refuse the empty one, which would mean the directory we are in."""
    if not name:
        raise InputError("a name is empty; give a file or a directory (is a shell variable unset?)")
    return Path(name)


def model(name: str) -> Path:
    """Return the path of an ONNX file; refuse what is not there."""
    path = _path(name)
    if not path.is_file():
        cause = "is a directory" if path.is_dir() else "no such file"
        raise InputError(f"{name}: {cause}; name an ONNX model")
    return path


def load(path: str) -> Program:
    """Read a program; refuse what is not there."""
    from neuflow import api

    if not _path(path).is_file():
        cause = "is a directory" if Path(path).is_dir() else "no such file"
        raise InputError(f"{path}: {cause}; make a program with neuflow compile")
    return api.load(path)


def check_target(name: str, endings: Sequence[str], read: Sequence[str | None] = ()) -> None:
    """Refuse a target that cannot be written, or is one of ``read``, before the work is done."""
    path = _path(name)
    if path.suffix not in endings:
        raise InputError(f"{name}: the name must end in {' or '.join(endings)}")
    if not path.parent.is_dir():
        raise InputError(f"{name}: directory {path.parent} does not exist; make it first")
    if path.is_dir():
        raise InputError(f"{name} is a directory; name a file")
    if not files.can_write(path.parent):
        raise InputError(f"{name}: directory {path.parent} cannot be written to; name another one")
    sources = [Path(source) for source in read if source and path.exists()]
    if any(source.exists() and path.samefile(source) for source in sources):
        raise InputError(f"{name}: is read as well, and would be lost; name another file")


@contextlib.contextmanager
def directory(name: str) -> Iterator[Path]:
    """Yield a directory that can be written to; made where missing, and taken back on failure."""
    path = _path(name)
    if path.exists() and not path.is_dir():
        raise InputError(f"{name} is a file; name a directory")
    made = [place for place in (path, *path.parents) if not place.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{name}: cannot be made: {error.strerror}") from None
    if not files.can_write(path):
        raise InputError(f"{name}: cannot be written to; name another directory")
    try:
        yield path
    except BaseException:
        with contextlib.suppress(OSError):  # something is in it
            for place in made:
                place.rmdir()
        raise


def read_arrays(name: str) -> Any:
    """Return the array of a ``.npy`` file, or the arrays of a ``.npz`` file by name."""
    import numpy as np

    path = _path(name)
    if path.suffix not in (".npy", ".npz"):
        raise InputError(f"{name}: give a .npy file, or a .npz file with arrays by input name")
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                return loaded
            with loaded:
                return {key: loaded[key] for key in loaded.files}
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        cause = str(error)
        if "Object arrays" in cause:
            cause = "it holds Python objects"
        elif "pickle" in cause:  # NumPy takes whatever it does not know for one
            cause = "it is no NumPy file"
        raise InputError(f"{name}: not usable: {cause}; save real numbers by numpy.save") from None
    except MemoryError as error:
        raise InputError(f"{name}: {error}; give fewer images at a time") from None
    except Exception:  # damage surfaces as errors of zip, zlib, NumPy and Python's own tokeniser
        raise InputError(f"{name}: damaged or not a NumPy file; save it by numpy.save") from None


def write_arrays(name: str, arrays: dict[str, Any]) -> None:
    """Write a ``.npz`` file, or the only array to a ``.npy`` file; all or nothing."""
    import numpy as np

    path = Path(name)
    if path.suffix == ".npz":
        files.write_atomic(path, lambda beside: _save_zip(beside, arrays))
        return
    (array,) = arrays.values()
    files.write_atomic(path, lambda beside: np.save(beside, array))


def _save_zip(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write what ``numpy.savez`` does, which takes no array that is called ``file``."""
    import numpy as np

    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)
