"""Writing files: whole or not at all, in nobody's way, leaving nothing behind."""

import fcntl
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from serkit.errors import OutputError
from serkit.saving.atomic import write_atomically


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "kept.safetensors"
    path.write_bytes(b"old")
    return path


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("failure", "raised", "text"),
    [
        (OSError(28, "No space left"), OutputError, r"cannot write .*kept\.safetensors: No space"),
        (KeyboardInterrupt("ctrl-c"), KeyboardInterrupt, "ctrl-c"),
    ],
    ids=["disk full", "interrupted"],
)
def test_failed_write_keeps_the_old_file(file, monkeypatch, step, failure, raised, text):
    def fails(*args):
        raise failure

    monkeypatch.setattr(os, step, fails)
    with pytest.raises(raised, match=text):
        write_atomically(file, bytes(1000))
    monkeypatch.undo()
    assert file.read_bytes() == b"old"
    assert list(file.parent.iterdir()) == [file]


def test_write_replaces_the_old_file_and_makes_folders(file, tmp_path):
    write_atomically(file, b"new")
    assert file.read_bytes() == b"new"
    write_atomically(tmp_path / "a" / "b" / "file", b"deep")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"deep"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("kept.safetensors/below", "cannot write .*below: "),
        ("folder", "cannot write .*folder: something other than a file has that name"),
        ("pipe", "cannot write .*pipe: something other than a file has that name"),
    ],
)
def test_what_is_no_file_is_not_written(file, name, text):
    (file.parent / "folder").mkdir()
    os.mkfifo(file.parent / "pipe")
    with pytest.raises(OutputError, match=text):
        write_atomically(file.parent / name, b"new")


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664])
def test_a_file_keeps_its_mode(file, mode):
    file.chmod(mode)
    write_atomically(file, b"new")
    assert stat.S_IMODE(file.stat().st_mode) == mode


def test_new_files_can_be_read_by_whom_the_user_lets(file, tmp_path):
    write_atomically(tmp_path / "new", b"")
    assert (tmp_path / "new").stat().st_mode == file.stat().st_mode


@pytest.mark.parametrize("is_there", [True, False])
def test_the_target_of_a_link_is_written(file, tmp_path, is_there):
    if not is_there:
        file.unlink()
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link"
    link.symlink_to(file)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    assert list(link.parent.iterdir()) == [link]


def test_what_killed_writers_left_is_swept_and_nothing_else(file, tmp_path):
    if os.fork() == 0:
        os.replace = lambda *paths: os._exit(9)
        write_atomically(file, bytes(1000))
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 9
    (left,) = {*tmp_path.iterdir()} - {file}
    assert left.name.startswith("kept.safetensors.")

    others = [f"kept.safetensors.{name}.tmp" for name in ("7", "G" * 16, "0" * 15)]
    others += [f"other.{'0' * 16}.tmp", f"{left.name}.tmp"]
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
    link, folder, busy = (tmp_path / f"kept.safetensors.{d * 16}.tmp" for d in "abc")
    link.symlink_to(tmp_path / others[0])
    folder.mkdir()
    with open(busy, "wb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        write_atomically(file, b"new")
    assert not left.exists()
    expected = {file, link, folder, busy, *(tmp_path / name for name in others)}
    assert {*tmp_path.iterdir()} == expected
    assert (tmp_path / others[0]).read_bytes() == b"mine"
    write_atomically(file, b"new")
    assert not busy.exists()  # as nobody holds it any more


def test_many_may_write_one_file_at_once(file, tmp_path):
    contents = [bytes([i]) * 10_000 for i in range(200)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_atomically(file, content), contents))
    assert file.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [file]
