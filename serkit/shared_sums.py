"""Sums over the processes of one machine, through memory that they share.

Each process writes its values into a place of its own. Of few values each then adds up all that
the others wrote; of many a part, for all to read. Only signals go through sockets, which also tell
when a process is gone. Between two processes that takes 0.02 ms for one number and 0.8 ms for 5 MB
of gradients, where gloo's sockets take 0.2 and 6.7 ms.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import mmap
import os
import select
import socket
import tempfile
import time
from collections.abc import Sequence
from typing import BinaryIO

import torch
from torch import Tensor, distributed

_REDUCTIONS = {"SUM": torch.sum, "MAX": torch.amax}
_FEW_BYTES = 2**16
_SECONDS_AWAKE = 2e-4  # waking up takes longer than most signals do
_LONGEST_SIGNAL = 1024  # bytes
_IS_POSSIBLE = hasattr(os, "memfd_create")


class SharedSums:
    """What adds up the vectors of `n_processes`.

    Parameters
    ----------
    file : binary file
        Memory that all of them have.
    others : list of socket
        To all others in the first process, to the first one in the others.
    rank, n_processes : int
    """

    def __init__(
        self, file: BinaryIO, others: list[socket.socket], rank: int, n_processes: int
    ) -> None:
        self._file, self._others, self._rank = file, others, rank
        self._n_processes = n_processes
        self._few = itertools.cycle(self._mapped(0, 2, n_processes, _FEW_BYTES))
        self._many = torch.empty(n_processes + 1, 0, dtype=torch.uint8)

    def reduce(self, values: Sequence[Tensor], operation: str) -> Tensor:
        """Vectors in a row, entry by entry the sum or the largest over all processes.

        Parameters
        ----------
        values : sequence of Tensor, each of shape (n,)
            On the processor, of the same shapes in all processes.
        operation : {"SUM", "MAX"}

        Returns
        -------
        Tensor, shape (total n,)
            To be read before the next call, and not to be changed: others may read it too.

        Raises
        ------
        RuntimeError or OSError
            If another process is gone or makes another call; then in all processes, and from then
            on at every call.
        """
        try:
            return self._reduced(values, operation)
        except BaseException:  # Ctrl-C too: this process is no longer in step with the others
            for other in self._others:
                other.close()
            raise

    def _reduced(self, values: Sequence[Tensor], operation: str) -> Tensor:
        dtype = functools.reduce(torch.promote_types, (v.dtype for v in values))
        n_values = sum(map(len, values))
        call = f"{operation} of {n_values} {dtype}".encode()
        if n_values * dtype.itemsize <= _FEW_BYTES:
            places = next(self._few)  # in turns, as the others may still read the last ones
            return self._reduced_few(values, places.view(dtype)[:, :n_values], operation, call)
        self._make_room(n_values * dtype.itemsize, call)
        places = self._many.view(dtype)[:, :n_values]
        return self._reduced_many(values, places, operation, call)

    def _reduced_few(
        self, values: Sequence[Tensor], places: Tensor, operation: str, call: bytes
    ) -> Tensor:
        torch.cat(values, out=places[self._rank])
        self._meet(call)
        return _REDUCTIONS[operation](places, dim=0)

    def _reduced_many(
        self, values: Sequence[Tensor], places: Tensor, operation: str, call: bytes
    ) -> Tensor:
        *_, result = places
        torch.cat(values, out=places[self._rank])
        self._meet(call)
        first, last = (len(result) * r // self._n_processes for r in (self._rank, self._rank + 1))
        _REDUCTIONS[operation](places[:-1, first:last], dim=0, out=result[first:last])
        self._meet(call)
        return result

    def _make_room(self, n_bytes: int, call: bytes) -> None:
        """A place for each process, and one for the result."""
        if n_bytes > self._many.shape[1]:
            self._meet(call)  # so that nobody reads what lies elsewhere from now on
            n_bytes = -(-n_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
            offset = 2 * self._n_processes * _FEW_BYTES
            self._many = self._mapped(offset, self._n_processes + 1, n_bytes)

    def _mapped(self, offset: int, *shape: int) -> Tensor:
        """Part of the memory, which is made larger if it has to be."""
        n_bytes = math.prod(shape)
        self._file.truncate(offset + n_bytes)
        mapped = mmap.mmap(self._file.fileno(), n_bytes, offset=offset)
        return torch.frombuffer(mapped, dtype=torch.uint8).view(shape)

    def _meet(self, call: bytes) -> None:
        """Wait for all processes; the first one tells the others what calls it heard of."""
        if self._rank == 0:
            told = b" and ".join(sorted({call, *map(_received, self._others)}))
            for other in self._others:
                other.send(told)
        else:
            self._others[0].send(call)
            told = _received(self._others[0])
        if told != call:
            raise RuntimeError(f"{call.decode()} here, all together {told.decode()}")


def _received(other: socket.socket) -> bytes:
    """The next signal of another process."""
    patient_until = time.perf_counter() + _SECONDS_AWAKE
    while time.perf_counter() < patient_until:
        with contextlib.suppress(BlockingIOError):
            return other.recv(_LONGEST_SIGNAL, socket.MSG_DONTWAIT) or b"nothing"
        os.sched_yield()
    poll = select.poll()
    poll.register(other, select.POLLIN)
    if not poll.poll(1000 * distributed.default_pg_timeout.total_seconds()):
        raise TimeoutError("no answer from another process")
    return other.recv(_LONGEST_SIGNAL) or b"nothing"


# -- how processes find each other -----------------------------------------------------------------


def opened(rank: int, n_processes: int) -> SharedSums | None:
    """Memory shared by all processes; None if they are on several machines, or not on Linux.

    To be called by all of them, who can talk through torch.distributed.
    """
    return _lent(n_processes) if rank == 0 else _borrowed(rank, n_processes)


def _lent(n_processes: int) -> SharedSums | None:
    """The first process's, which waits for the others at a socket in a folder of this user's."""
    with contextlib.ExitStack() as stack:
        try:
            file = _new_memory()
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            door = stack.enter_context(_new_socket())
            door.bind(os.path.join(folder, "door"))
            door.listen(n_processes)
            path = door.getsockname()
        except OSError:  # the system has no such memory or sockets, or the path is too long
            path = None
        distributed.broadcast_object_list([path])
        if not _agree(path is not None):
            return None
        door.settimeout(distributed.default_pg_timeout.total_seconds())
        others = [door.accept()[0] for _ in range(n_processes - 1)]
    for other in others:
        socket.send_fds(other, [b"memory"], [file.fileno()])
    return SharedSums(file, others, 0, n_processes)


def _borrowed(rank: int, n_processes: int) -> SharedSums | None:
    """Another process's, from the first one if that is on this machine."""
    path: list[str | None] = [None]
    distributed.broadcast_object_list(path)
    first = _connected(path[0])
    if not _agree(first is not None):
        if first is not None:
            first.close()
        return None
    first.settimeout(distributed.default_pg_timeout.total_seconds())
    _, files, _, _ = socket.recv_fds(first, _LONGEST_SIGNAL, 1)
    if not files:
        raise RuntimeError("the first process is gone")
    first.settimeout(None)
    os.set_inheritable(files[0], False)
    return SharedSums(open(files[0], "r+b", buffering=0), [first], rank, n_processes)


def _connected(path: str | None) -> socket.socket | None:
    """A connection to the first process, if it is on this machine."""
    if path is None or not _IS_POSSIBLE:
        return None
    connection = _new_socket()
    if connection.connect_ex(path):
        connection.close()
        return None
    return connection


def _new_memory() -> BinaryIO:
    if not _IS_POSSIBLE:
        raise OSError("this system has no memory without a name")
    return open(os.memfd_create("serkit"), "r+b", buffering=0)


def _new_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _agree(is_near: bool) -> bool:
    """Whether all processes are near the first."""
    least = torch.tensor(float(is_near))
    distributed.all_reduce(least, distributed.ReduceOp.MIN)
    return bool(least)
