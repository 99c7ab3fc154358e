"""Pictures: functions that take arrays, or a graph, and return a figure."""

from .arrays import *  # noqa: F403
