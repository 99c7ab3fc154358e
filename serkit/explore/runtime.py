"""onnxruntime-web out of a user's folder, for nets with layers that the page does not have."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..errors import InputError
from .packing import compressed

_PACKAGE = Path("node_modules") / "onnxruntime-web" / "dist"
_SCRIPT, _WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"


class Runtime:
    """The files of onnxruntime-web in a folder, where npm has put it.

    Parameters
    ----------
    folder : path
        That in which ``npm install onnxruntime-web`` was called, or the one which holds the files.
    """

    def __init__(self, folder: Path) -> None:
        places = [folder / _PACKAGE, folder / "onnxruntime-web" / "dist", folder / "dist", folder]
        whole = [p for p in places if (p / _SCRIPT).is_file() and (p / _WASM).is_file()]
        if not whole:
            raise InputError(
                f"Graph.explore: runtime={str(folder)!r} holds no onnxruntime-web ({_SCRIPT} and "
                f"{_WASM}); call `npm install onnxruntime-web` there"
            )
        self.place = whole[0]

    def texts(self) -> dict[str, str]:
        """Script and WebAssembly, compressed, as text for the page."""
        files = {"ort": _SCRIPT, "wasm": _WASM}
        return {name: compressed((self.place / file).read_bytes()) for name, file in files.items()}


def as_onnx(net: nn.Module, row: np.ndarray, label: str) -> bytes:
    """A net as an ONNX file that takes one row, (1, ...); InputError if it cannot be exported."""
    before = logging.root.manager.disable
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            logging.disable(logging.ERROR)
            rows = (torch.tensor(row, dtype=torch.float32),)
            program = torch.onnx.export(net.cpu().eval(), rows, dynamo=True, verbose=False)
    except ImportError as error:
        raise ImportError(
            f"{label}: runtime= needs {error.name}: pip install '.[export]' in serkit's checkout"
        ) from None
    except Exception as error:  # of the net's own code too
        raise InputError(
            f"{label}: the net cannot be exported for runtime=: {str(error).splitlines()[0]:.200}"
        ) from error
    finally:
        logging.disable(before)
    assert program is not None
    return program.model_proto.SerializeToString()
