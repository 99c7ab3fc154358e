"""Blocks of rows in several threads."""

import threading

import numpy as np
import pytest
import torch
from threadpoolctl import ThreadpoolController

from serkit.modules.common.threads import for_blocks

N = 40_000  # rows of several blocks


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_blocks_follow_each_other_and_hold_every_row_once(n_threads):
    blocks = list(for_blocks(lambda block: block, N, n_threads))
    assert len(blocks) > 2
    rows = np.concatenate([np.arange(N)[block] for block in blocks])
    np.testing.assert_array_equal(rows, np.arange(N))
    assert list(for_blocks(lambda block: block, 0, n_threads)) == []


def test_as_many_threads_work_as_torch_uses():
    """Two tasks that wait for each other end only if both run at once."""
    meeting, before = threading.Barrier(2), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        list(for_blocks(lambda block: meeting.wait(timeout=60), 2 * 2**14))
    finally:
        torch.set_num_threads(before)


def test_overlapping_passes_give_numpy_its_threads_back():
    def threads():
        pools = ThreadpoolController().select(user_api="blas").info()
        return [pool["num_threads"] for pool in pools]

    before = threads()
    first, second = (for_blocks(lambda block: block, 10, n_threads=1) for _ in range(2))
    next(first)
    next(second)
    assert set(threads()) == {1}
    first.close()
    assert set(threads()) == {1}
    second.close()
    assert threads() == before
