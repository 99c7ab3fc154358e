"""Saved files: graphs, and any tree of values, in checked files of which nothing is executed."""

from .atomic import write_atomically
from .format import read, write
from .snapshot import Run, load, load_object, resume, save, save_object

__all__ = [
    "Run",
    "load",
    "load_object",
    "read",
    "resume",
    "save",
    "save_object",
    "write",
    "write_atomically",
]
