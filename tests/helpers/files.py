"""Files of data sets: which are there, and ways to damage them."""

import os
from pathlib import Path

import pytest

LOCAL = os.environ.get("SERKIT_DATA")


def needs(*files):
    """Skip unless the folder SERKIT_DATA holds the files; this is settled before other fixtures."""
    there = LOCAL and all((Path(LOCAL) / file).exists() for file in files)
    return pytest.mark.skipif(not there, reason=f"needs {', '.join(files)} in SERKIT_DATA")


def cut(path):
    path.write_bytes(path.read_bytes()[:-300])


def text(path):
    path.write_text("no data")
