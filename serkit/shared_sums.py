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

import torch
from torch import Tensor, distributed

_REDUCTIONS = {"SUM": torch.sum, "MAX": torch.amax}
_FEW_BYTES = 2**16
_SECONDS_AWAKE = 2e-4  # waking up takes longer than most signals do
_LONGEST_SIGNAL = 128  # bytes
_IS_POSSIBLE = hasattr(os, "memfd_create")


class SharedSums:
    """What adds up the vectors of `n_processes`.

    Parameters
    ----------
    file : int
        Descriptor of memory that all of them have.
    others : list of socket
        To all others in the first process, to the first one in the others.
    rank, n_processes : int
    """

    def __init__(self, file: int, others: list[socket.socket], rank: int, n_processes: int) -> None:
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
            If another process is gone, or does something else.
        """
        dtype = functools.reduce(torch.promote_types, (v.dtype for v in values))
        n_values = sum(map(len, values))
        call = f"{operation} of {n_values} {dtype}".encode()
        if n_values * dtype.itemsize <= _FEW_BYTES:
            places = next(self._few)  # in turns, as the others may still read the last ones
            return self._reduce_few(values, places.view(dtype)[:, :n_values], operation, call)
        self._make_room(n_values * dtype.itemsize, call)
        places = self._many.view(dtype)[:, :n_values]
        return self._reduce_many(values, places, operation, call)

    def _reduce_few(
        self, values: Sequence[Tensor], places: Tensor, operation: str, call: bytes
    ) -> Tensor:
        torch.cat(values, out=places[self._rank])
        self._meet(call)
        return _REDUCTIONS[operation](places, dim=0)

    def _reduce_many(
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
        os.truncate(self._file, offset + n_bytes)
        mapped = mmap.mmap(self._file, n_bytes, offset=offset)
        return torch.frombuffer(mapped, dtype=torch.uint8).view(shape)

    def _meet(self, call: bytes) -> None:
        """Wait until all processes are here, in the same call."""
        if self._rank == 0:
            heard = [_received(other) for other in self._others]
            for other in self._others:
                other.send(call)
        else:
            self._others[0].send(call)
            heard = [_received(self._others[0])]
        for answer in heard:
            if answer != call:
                raise RuntimeError(f"{call.decode()} here, {answer.decode() or 'nothing'} there")


def _received(other: socket.socket) -> bytes:
    """The next signal of another process; nothing if it is gone."""
    patient_until = time.perf_counter() + _SECONDS_AWAKE
    while time.perf_counter() < patient_until:
        with contextlib.suppress(BlockingIOError):
            return other.recv(_LONGEST_SIGNAL, socket.MSG_DONTWAIT)
        os.sched_yield()
    ready, _, _ = select.select([other], [], [], distributed.default_pg_timeout.total_seconds())
    if not ready:
        raise TimeoutError("no answer from another process")
    return other.recv(_LONGEST_SIGNAL)


def opened(rank: int, n_processes: int) -> SharedSums | None:
    """Memory shared by all processes; None if they are on several machines, or not on Linux.

    To be called by all of them, who can talk through torch.distributed.
    """
    with tempfile.TemporaryDirectory() as folder:
        door = _door(folder, n_processes) if rank == 0 else None
        path = [door and door.getsockname()]
        distributed.broadcast_object_list(path)
        own = door if rank == 0 else _connected(path[0])
        are_near = torch.tensor(float(own is not None))
        distributed.all_reduce(are_near, distributed.ReduceOp.MIN)
        if not are_near:
            if own is not None:
                own.close()
            return None
        if rank > 0:
            _, (file,), _, _ = socket.recv_fds(own, _LONGEST_SIGNAL, 1)
            return SharedSums(file, [own], rank, n_processes)
        others = [door.accept()[0] for _ in range(n_processes - 1)]
        door.close()
    file = os.memfd_create("serkit")
    for other in others:
        socket.send_fds(other, [b"memory"], [file])
    return SharedSums(file, others, rank, n_processes)


def _door(folder: str, n_processes: int) -> socket.socket | None:
    """Where this machine's processes of this user can reach the first one; None if not possible."""
    if not _IS_POSSIBLE:
        return None
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        door.bind(os.path.join(folder, "door"))
    except OSError:  # the path may be too long
        door.close()
        return None
    door.listen(n_processes)
    return door


def _connected(path: str | None) -> socket.socket | None:
    """A connection to the first process, if it is on this machine."""
    if path is None or not _IS_POSSIBLE:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if connection.connect_ex(path):
        connection.close()
        return None
    return connection
