"""Pictures: functions that take arrays, or a graph's names and history, and return a figure."""

from . import graph
from .arrays import (
    confusion,
    heat_map,
    image_grid,
    latents,
    latents_3d,
    log_likelihood,
    losses,
    reconstructions,
    samples,
)
from .evolution import evolution
from .images import save_gif
from .profiles import profiles, topics
from .runs import by_number, by_round

__all__ = [
    "by_number",
    "by_round",
    "confusion",
    "evolution",
    "graph",
    "heat_map",
    "image_grid",
    "latents",
    "latents_3d",
    "log_likelihood",
    "losses",
    "profiles",
    "reconstructions",
    "samples",
    "save_gif",
    "topics",
]
