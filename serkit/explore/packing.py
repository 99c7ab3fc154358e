"""Arrays as the text of a page: few bytes a number, compressed together, base 85.

A code says how numbers are stored: "u1" and "i4" are integers; "f2", "f3" and "f4" floats of so
many bytes, of which "f3" is a float32 without the last byte (16 bits of precision). Bytes of equal
weight stand side by side, as those of the highest compress best.
"""

from __future__ import annotations

import base64
import gzip
import sys

import numpy as np

Reference = list  # [first byte, number of values, code]


def as_stored(array: np.ndarray, code: str) -> np.ndarray:
    """An array as it will be read again, in float32 (integers as they are)."""
    if code == "f2":
        return array.astype(np.float16).astype(np.float32)
    if code == "f3":
        bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
        return ((bits + np.uint32(0x80)) & np.uint32(0xFFFFFF00)).view(np.float32)
    return array.astype(np.float32) if code == "f4" else array


class Blob:
    """Arrays one after the other; each is added once and read in the page by its reference."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._n_bytes = 0

    def add(self, array: np.ndarray, code: str) -> Reference:
        """Store an array in a code; returns its reference.

        >>> import numpy as np
        >>> from serkit.explore.packing import Blob
        >>> blob = Blob()
        >>> blob.add(np.array([0.5, 2.0]), "f2"), blob.add(np.array([7]), "u1")
        ([0, 2, 'f2'], [4, 1, 'u1'])
        """
        n_bytes = int(code[1])
        kinds = {"u1": np.uint8, "i4": np.int32, "f2": np.float16}
        stored = as_stored(array, code).astype(kinds.get(code, np.float32))
        assert sys.byteorder == "little" or stored.dtype.itemsize == 1
        planes = stored.reshape(-1, 1).view(np.uint8)[:, ::-1][:, :n_bytes].T  # highest first
        reference = [self._n_bytes, int(stored.size), code]
        self._pieces.append(planes.tobytes())
        self._n_bytes += planes.size
        return reference

    def add_within(self, array: np.ndarray, tolerance: float) -> Reference:
        """Store numbers in as few bytes as change none by more than a tolerance."""
        values = np.asarray(array, dtype=np.float32)
        for code in ("f2", "f3"):
            with np.errstate(over="ignore", invalid="ignore"):
                if (np.abs(as_stored(values, code) - values) <= tolerance).all():
                    return self.add(values, code)
        return self.add(values, "f4")

    def text(self) -> str:
        """All of them, compressed, as letters."""
        return compressed(b"".join(self._pieces))


def compressed(content: bytes) -> str:
    """Bytes as the letters of a page, which its `inflated` reads; the same every time.

    Five letters are four bytes, a sixteenth shorter than base64; none of them is "<".
    """
    letters = base64.b85encode(gzip.compress(content, 9, mtime=0)).decode()
    return letters.replace("<", ",")
