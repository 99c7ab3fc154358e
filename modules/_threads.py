"""Work on parts of the rows, by several threads, whose number makes no difference to the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

_PART_ROWS = 2**14


@cache
def _threadpools() -> ThreadpoolController:
    return ThreadpoolController()


def for_parts(
    task: Callable[[slice], Any], n_rows: int, n_threads: int | None = None
) -> Iterator[Any]:
    """Yield the results, in order, of a task on consecutive parts of the rows.

    As many threads work on them as torch uses; NumPy's products run on one each meanwhile.
    """
    parts = [slice(i, min(i + _PART_ROWS, n_rows)) for i in range(0, n_rows, _PART_ROWS)]
    n_threads = min(n_threads or torch.get_num_threads(), len(parts))
    with _threadpools().limit(limits=1, user_api="blas"):
        if n_threads == 1:
            yield from map(task, parts)
        else:
            with ThreadPoolExecutor(n_threads) as pool:
                yield from pool.map(task, parts)
