"""Saved files: graphs, and any tree of values, in checked files of which nothing is executed."""

from .atomic import write_atomically
from .format import read, write
from .snapshot import Run, load, resume, save

__all__ = ["Run", "load", "read", "resume", "save", "write", "write_atomically"]
