"""Data sets: embedded, found on this machine, downloaded, or made up."""

from .loaders import *  # noqa: F403
