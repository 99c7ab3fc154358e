"""Work on blocks of rows by several threads, whose number makes no difference to the result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController

Result = TypeVar("Result")

_BLOCK_ROWS = 2**14
_threads_of_libraries = cache(ThreadpoolController)  # which finds the libraries but once


class _SingleThreadedProducts:
    """A context in which NumPy's products run on one thread, also where several overlap."""

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.limits = _threads_of_libraries().limit(limits=1, user_api="blas")
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.limits.restore_original_limits()


_single_threaded_products = _SingleThreadedProducts()


def for_blocks(
    task: Callable[[slice], Result], n_rows: int, n_threads: int | None = None
) -> Iterator[Result]:
    """Yield a task's results on consecutive blocks of rows, in order.

    Unless a number of threads is given they are as many as torch's; NumPy's products use one each.
    """
    blocks = [slice(i, min(i + _BLOCK_ROWS, n_rows)) for i in range(0, n_rows, _BLOCK_ROWS)]
    n_threads = min(n_threads or torch.get_num_threads(), len(blocks))
    with _single_threaded_products:
        if n_threads <= 1:
            yield from map(task, blocks)
        else:
            with ThreadPoolExecutor(n_threads) as pool:
                yield from pool.map(task, blocks)
