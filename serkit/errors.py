"""Every error serkit raises on purpose.

Each derives from the built-in exception a caller would expect, so that `except ValueError` works
for bad input and `except RuntimeError` for things that went wrong while running.

>>> import serkit as srk
>>> try:
...     srk.Observation([[1.0, float("nan")], [3.0, 4.0]])
... except ValueError as error:
...     print(type(error).__name__, "-", error)
InputError - Observation: NaN or infinity in 1 of 2 rows (rows 0); remove or fill them
"""

import sklearn.exceptions


class SerkitError(Exception):
    """Base of all errors that serkit raises on purpose."""


class InputError(SerkitError, ValueError):
    """Data or an argument is not what was expected; nothing was changed."""


class InputTypeError(InputError, TypeError):
    """Rows are of a type that scikit-learn refuses by a TypeError."""


class MessageError(InputError):
    """A message's values or shapes are wrong, or two messages cannot be combined."""


class GraphError(SerkitError, ValueError):
    """The modules are connected in a way that cannot work."""


class NotReadyError(SerkitError, RuntimeError):
    """Something has to be done first: connect, update or fit."""


class NotFittedError(NotReadyError, sklearn.exceptions.NotFittedError):
    """A model is asked for what it has not learnt yet; scikit-learn's error of that name too."""


class TrainingError(SerkitError, RuntimeError):
    """Training failed; what was learnt before it is as it was."""


class SavedFileError(SerkitError, ValueError):
    """A saved file is damaged or does not belong to this graph; nothing was changed."""


class OutputError(SerkitError, OSError):
    """A file or folder cannot be written."""


class DatasetError(SerkitError, RuntimeError):
    """A data set is not at hand and could not be downloaded."""
