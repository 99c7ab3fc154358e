"""Work on parts of the rows, by several threads, whose number makes no difference to the result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

_PART_ROWS = 2**14


class _SingleThreadedProducts:
    """A context in which NumPy's products run on one thread, also where several overlap."""

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0
        self.controller: ThreadpoolController | None = None  # finds its libraries but once

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.controller = self.controller or ThreadpoolController()
                self.limits = self.controller.limit(limits=1, user_api="blas")
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.limits.restore_original_limits()


_single_threaded_products = _SingleThreadedProducts()


def for_parts(
    task: Callable[[slice], Any], n_rows: int, n_threads: int | None = None
) -> Iterator[Any]:
    """Yield the results, in order, of a task on consecutive parts of the rows.

    As many threads work on them as torch uses; NumPy's products run on one each meanwhile.
    """
    parts = [slice(i, min(i + _PART_ROWS, n_rows)) for i in range(0, n_rows, _PART_ROWS)]
    n_threads = min(n_threads or torch.get_num_threads(), len(parts))
    with _single_threaded_products:
        if n_threads <= 1:
            yield from map(task, parts)
        else:
            with ThreadPoolExecutor(n_threads) as pool:
                yield from pool.map(task, parts)
