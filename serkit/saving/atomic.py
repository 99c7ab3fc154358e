"""Writing a file so that its name always stands for a whole one, the old or the new.

The content goes to a temporary file in the same folder, ``NAME.0123456789abcdef.tmp`` with 16
random digits, which is then renamed. Its writer holds a lock on it (`flock`), which the system
releases when the process ends, however it ends. So a temporary file without a lock was left behind
by a killed process, and the next write of that name deletes it. Files of other names, links and
folders are never touched.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import OutputError

try:
    import fcntl
except ImportError:  # on Windows, where nothing is locked and so nothing deleted
    fcntl = None  # type: ignore[assignment]


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file under a temporary name, then rename it.

    Of a symbolic link the target is written. A file that is already there keeps its mode, and
    stays as it is if anything fails.

    Raises
    ------
    OutputError
        If the folder cannot be written to, or something other than a file has that name.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OutputError(f"cannot write {path}: something other than a file has that name")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        with _temporary(target) as file:
            if target.exists():
                os.chmod(file.name, target.stat().st_mode & 0o7777)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows renames closed files only
            os.replace(file.name, target)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


@contextmanager
def _temporary(target: Path) -> Iterator[BinaryIO]:
    """A new, locked file beside a target; in the end nothing has its name."""
    while True:
        name = target.with_name(f"{target.name}.{secrets.token_hex(8)}.tmp")
        with open(name, "xb") as file:  # only if nothing has that name, not even a link
            try:
                _lock(file, wait=True)
                if name.exists():  # or else another process has swept it before it was locked
                    yield file
                    return
            finally:
                name.unlink(missing_ok=True)


def _sweep(target: Path) -> None:
    """Delete the temporary files of a target whose writers have ended."""
    pattern = re.compile(re.escape(target.name) + r"\.[0-9a-f]{16}\.tmp")
    for entry in os.scandir(target.parent):
        if pattern.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            with suppress(OSError), open(entry.path, "rb") as file:  # it may just have been renamed
                if _lock(file, wait=False):
                    os.unlink(entry.path)


def _lock(file: BinaryIO, *, wait: bool) -> bool:
    """Lock a file; whether that worked: not if another has, or where there are no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
