"""The explorer: a page that shows a trained graph in a browser, see `serkit.Graph.explore`."""

from .page import write

__all__ = ["write"]
