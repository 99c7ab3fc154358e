"""onnxruntime-web out of a user's folder, for nets with layers that the page has not itself."""

from __future__ import annotations

from pathlib import Path


class Runtime:
    """The files of onnxruntime-web in a folder where npm has put it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
