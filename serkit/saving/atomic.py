"""Writing a file so that its name always stands for a whole one, the old or the new.

What would keep a file from being written can be asked beforehand (`check_writable`).

The content goes to a temporary file in the same folder, ``NAME.0123456789abcdef.tmp`` with 16
random digits, which is then renamed. Its writer holds a lock on it (`flock`), which the system
releases when the process ends, however it ends. So a temporary file without a lock was left behind
by a killed process, and the next write of that name deletes it. Files of other names, links and
folders are never touched.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import OutputError

try:
    import fcntl
except ImportError:  # on Windows, where nothing is locked and so nothing deleted
    fcntl = None  # type: ignore[assignment]


def write_atomically(
    path: str | os.PathLike, content: bytes | Callable[[BinaryIO], object]
) -> None:
    """Write a file under a temporary name, then rename it.

    Its content is bytes, or a function that writes them to the open file.
    Of a symbolic link the target is written. A file that is already there keeps its mode, and
    stays as it is if anything fails.

    Raises
    ------
    OutputError
        If the folder cannot be written to, the file is read-only, or something other than a file
        has that name.
    """
    with explained(path), _temporary(_target(path)) as (file, target):
        if target.exists():
            os.chmod(file.name, stat.S_IMODE(target.stat().st_mode))
        if callable(content):
            content(file)
        else:
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
        if fcntl is None:
            file.close()  # Windows renames closed files only
        os.replace(file.name, target)


def check_writable(path: str | os.PathLike, n_bytes: int) -> None:
    """Raise OutputError now for what would keep a file of so many bytes from being written later.

    Its folder is made, and there is nothing of it left but that.
    """
    with explained(path), _temporary(_target(path)) as (file, _):
        reserve(file, n_bytes)


def reserve(file: BinaryIO, n_bytes: int) -> None:
    """Raise OSError if a new file has no room for so many bytes, by its disk or by a quota."""
    if n_bytes and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise  # or else the file system cannot tell


def _target(path: str | os.PathLike) -> Path:
    """The file to write, its folder made; OSError for what is no file or not to be written."""
    target = Path(os.path.realpath(path))
    if target.exists():
        if not target.is_file():
            raise OSError("something other than a file has that name")
        if not (os.access(target, os.W_OK) and target.stat().st_mode & 0o222):
            raise OSError("it is read-only")  # to the administrator, too, by its mode
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


@contextmanager
def explained(path: str | os.PathLike) -> Iterator[None]:
    """Make an OutputError that names the file of whatever the system says."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError for names that none can have
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write to {path}: {reason}") from None


@contextmanager
def _temporary(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new, locked file beside a target, and that; in the end nothing has the new one's name."""
    _sweep(target)
    while True:
        name = target.with_name(f"{target.name}.{secrets.token_hex(8)}.tmp")
        with open(name, "xb") as file:  # only if nothing has that name, not even a link
            try:
                _lock(file, wait=True)
                if name.exists():  # or else another process has swept it before it was locked
                    yield file, target
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
