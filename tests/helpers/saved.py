"""Equality to the bit of what was saved and what was read."""

import numpy as np
import torch
from sklearn.base import BaseEstimator

from serkit import Posterior
from serkit.messages import Message


def assert_same(left, right, where="state"):
    """Equal to the bit, down through dicts, sequences, messages, arrays and tensors."""
    if isinstance(left, Message | Posterior):
        assert type(left) is type(right), where
        left, right = vars(left), vars(right)
    if isinstance(left, BaseEstimator):
        assert type(left) is type(right), where
        left, right = vars(left), vars(right)
    if isinstance(left, np.random.Generator):
        left, right = left.bit_generator.state, right.bit_generator.state
    if isinstance(left, np.random.RandomState):
        left, right = left.get_state(), right.get_state()
    if isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            if key != "seconds":
                assert_same(left[key], right[key], f"{where}[{key!r}]")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for i, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_same(one, other, f"{where}[{i}]")
    elif isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype, where
        assert torch.equal(left, right), where
    elif isinstance(left, np.ndarray) and left.dtype == object:
        assert left.shape == right.shape, where
        assert_same(left.ravel().tolist(), right.ravel().tolist(), where)
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype, where
        np.testing.assert_array_equal(left, right, err_msg=where)
    else:
        assert left == right or (left != left and right != right), where  # NaN, or the same
