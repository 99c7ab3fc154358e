"""What to choose by many runs: whether joint training pays, and how much hangs on the seed."""

from .repeating import Repeats, repeat

__all__ = ["Repeats", "repeat"]
