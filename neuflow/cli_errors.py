"""What the user's machine lacks or bars, as the one line that a command ends with."""

from __future__ import annotations

import errno

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Any disk that we keep something on may fill up."""

BARRED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)
"""Errors of a place that a name leads to, which looking whether it is there raises already."""


def line(error: OSError | MemoryError) -> str | None:
    """Return cause and fix; None where the error is a bug of ours."""
    if isinstance(error, MemoryError):
        return f"{error or 'out of memory'}; give fewer images, or a smaller model"
    if error.errno in FULL:
        place = f"{error.strerror} ({error.filename or 'the output, or the cache'})"
        return f"{place}; make room there, or set NEUFLOW_CACHE and TMPDIR to directories elsewhere"
    if error.errno in BARRED and error.filename:
        return f"{error.filename}: {error.strerror}; name another file or directory"
    return None
