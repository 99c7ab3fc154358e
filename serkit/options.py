"""Constructor arguments: what each may be stands beside its default, and is checked in one place.

A class with options is a dataclass whose fields carry their range::

    @dataclass(eq=False, repr=False)
    class Shift(Options):
        size: Annotated[float, Number(above=0)] = 0.1
        mode: Annotated[str, Choice("wrap", "edge")] = "edge"

`Options.check_options` then raises an `InputError` that names the object, the argument, what it may
be and what it is. `get_params`, `set_params` and `sklearn.base.clone` work as for any estimator.
"""

from __future__ import annotations

import difflib
import inspect
import math
import os
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from numbers import Integral
from typing import Annotated, Any, Self, TypeAlias, get_type_hints

import numpy as np
from numpy.random import Generator
from sklearn.base import BaseEstimator

from .errors import InputError, SerkitError
from .reading import rows_in

_MOST = 2**63 - 1  # what NumPy counts to
_LINE = 60
_shortened = reprlib.Repr()
_shortened.maxother = _shortened.maxstring = 100

# What the original Serket calls its arguments, and what they are called here.
_SERKET_NAMES = {
    "itr": ("max_iter", "epochs"),
    "epoch": ("epochs",),
    "category": ("labels",),
    "K": ("n_components",),
    "batch": ("batch_size",),
    "KL_param": ("alpha",),
    "hidden_encoder_dim": ("hidden_sizes",),
}


@dataclass(frozen=True, kw_only=True)
class Constraint(ABC):
    """Abstract base of ranges: what values an argument may have.

    Parameters
    ----------
    or_none : bool
        Whether None will do as well.
    or_function_of : tuple of str
        Names of arguments, if a function of those will do as well.
    """

    or_none: bool = False
    or_function_of: tuple[str, ...] = ()

    def accepts(self, value: Any) -> bool:
        """Whether a value is in the range, or None or a function where those will do."""
        if value is None:
            return self.or_none
        return self.fits(value) or (self.or_function_of != () and self._function.fits(value))

    @abstractmethod
    def fits(self, value: Any) -> bool:
        """Whether a value other than None is in the range."""

    @property
    @abstractmethod
    def wanted(self) -> str:
        """The range in words."""

    def problem(self, name: str, value: Any) -> str:
        """The error text for an argument of that name whose value is not accepted."""
        return f"{name} must be {self.wanted}{self._or_function}, got {in_words(value)}"

    @property
    def _function(self) -> Function:
        return Function(of=self.or_function_of)

    @property
    def _or_function(self) -> str:
        return f", or {self._function.wanted}" if self.or_function_of else ""


@dataclass(frozen=True, init=False)
class Choice(Constraint):
    """One of several strings, booleans or None."""

    allowed: tuple[Any, ...]  # a field, as typing gives back the first of hints that are equal

    def __init__(self, *allowed: Any, or_function_of: tuple[str, ...] = ()) -> None:
        super().__init__(or_none=None in allowed, or_function_of=or_function_of)
        object.__setattr__(self, "allowed", allowed)

    def fits(self, value: Any) -> bool:
        """Whether a value is among those allowed."""
        return isinstance(value, str | int | np.bool_) and value in self.allowed

    @property
    def wanted(self) -> str:
        """The range in words."""
        return f"one of {', '.join(map(repr, self.allowed))}"

    def problem(self, name: str, value: Any) -> str:
        """The error text for a value that is not among those allowed."""
        return f"unknown {name}={in_words(value)}; expected {self.wanted}{self._or_function}"


@dataclass(frozen=True, kw_only=True)
class Text(Constraint):
    """A string."""

    wanted = "a string"

    def fits(self, value: Any) -> bool:
        """Whether a value is a string."""
        return isinstance(value, str)


@dataclass(frozen=True, kw_only=True)
class Count(Constraint):
    """An integer, Python's or NumPy's, of at least `at_least`.

    Where each of so many takes memory, `each` is how many numbers of 8 bytes it takes, and what
    memory has no room for is refused.
    """

    at_least: int = 1
    each: int = 0

    def fits(self, value: Any) -> bool:
        """Whether a value is such an integer; booleans are none."""
        is_integer = isinstance(value, Integral) and not isinstance(value, bool)
        return (
            is_integer
            and self.at_least <= int(value) <= _MOST
            and _has_room(self.each * int(value))
        )

    def problem(self, name: str, value: Any) -> str:
        """The error text for a value that is no such integer, or too large for the memory."""
        if self.each and replace(self, each=0).accepts(value):
            return f"{name}={value} needs more memory than there is"
        return super().problem(name, value)

    @property
    def wanted(self) -> str:
        """The range in words."""
        return f"an integer >= {self.at_least}"


@dataclass(frozen=True, kw_only=True)
class Counts(Constraint):
    """A sequence of integers of at least 1."""

    or_empty: bool = False
    each: int = 0
    wanted = "a sequence of integers >= 1"

    def fits(self, value: Any) -> bool:
        """Whether a value is such a sequence; strings and arrays are none."""
        is_sequence = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        fit = is_sequence and all(map(Count(each=self.each).fits, value))
        return fit and (self.or_empty or len(value) > 0)


@dataclass(frozen=True, kw_only=True)
class Number(Constraint):
    """A finite number within bounds, or one of a few words that stand for one."""

    at_least: float = -math.inf
    above: float = -math.inf
    below: float = math.inf
    at_most: float = math.inf
    or_words: tuple[str, ...] = ()

    def fits(self, value: Any) -> bool:
        """Whether a value is such a number or word; booleans, NaN and infinity are none."""
        if isinstance(value, str):
            return value in self.or_words
        if isinstance(value, bool) or not isinstance(value, Integral | float | np.floating):
            return False
        try:
            number = float(value)
        except OverflowError:  # of very large integers
            return False
        return self.above < number < self.below and self.at_least <= number <= self.at_most

    @property
    def wanted(self) -> str:
        """The range in words."""
        bounds = {">": self.above, ">=": self.at_least, "<": self.below, "<=": self.at_most}
        stated = [f"{sign} {bound}" for sign, bound in bounds.items() if math.isfinite(bound)]
        words = "".join(f", or {word!r}" for word in self.or_words)
        return f"a number {' and '.join(stated)}".rstrip() + words


@dataclass(frozen=True)
class Kind(Constraint):
    """An object of a class, which has nothing to do with its being an option."""

    of: type

    @property
    def wanted(self) -> str:
        """The range in words."""
        name = self.of.__name__
        return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"

    def fits(self, value: Any) -> bool:
        """Whether a value is of the class."""
        return isinstance(value, self.of)


@dataclass(frozen=True)
class Several(Constraint):
    """A list or tuple of which each fits."""

    each: Constraint

    @property
    def wanted(self) -> str:
        """The range in words."""
        return f"a list, each {self.each.wanted}"

    def fits(self, value: Any) -> bool:
        """Whether a value is such a list or tuple."""
        return isinstance(value, list | tuple) and all(map(self.each.accepts, value))


@dataclass(frozen=True)
class EachUpdate(Constraint):
    """What an argument may be in all updates, or a sequence of it, one an update (`of_update`).

    Parameters
    ----------
    each : Constraint
    further : Constraint, optional
        Of all entries but the first, where they may be something else.
    """

    each: Constraint
    further: Constraint | None = None

    def fits(self, value: Any) -> bool:
        """Whether a value is in the range, or all of a sequence are; arrays are none."""
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            return self.each.fits(value)
        further = self.further or self.each
        return len(value) > 0 and self.each.fits(value[0]) and all(map(further.fits, value[1:]))

    @property
    def wanted(self) -> str:
        """The range in words."""
        further = f", each further one {self.further.wanted}" if self.further else ""
        return f"{self.each.wanted}, or several{further}"


@dataclass(frozen=True, kw_only=True)
class FilePath(Constraint):
    """The path of a file or folder."""

    wanted = "a path, as a string or a pathlib.Path"

    def fits(self, value: Any) -> bool:
        """Whether a value can name a file."""
        if not isinstance(value, str | os.PathLike):
            return False
        return isinstance(name := os.fspath(value), str) and name != "" and "\0" not in name


@dataclass(frozen=True, kw_only=True)
class Function(Constraint):
    """A function of some arguments, or an object that is called like one; no class."""

    of: tuple[str, ...]

    @property
    def wanted(self) -> str:
        """The range in words."""
        return f"a function of {' and '.join(self.of)}"

    def fits(self, value: Any) -> bool:
        """Whether a value can be called with so many arguments, as far as one can know."""
        if not callable(value) or isinstance(value, type):
            return False
        try:
            inspect.signature(value).bind(*self.of)
        except TypeError:
            return False
        except ValueError:  # of some functions written in C
            return True
        return True


RandomState: TypeAlias = int | np.random.Generator | np.random.RandomState | None


@dataclass(frozen=True, kw_only=True)
class Randomness(Constraint):
    """What random numbers come from: a seed, a NumPy generator to draw one from, or None."""

    or_none: bool = True
    wanted = "an integer >= 0 or a NumPy random generator"

    def fits(self, value: Any) -> bool:
        """Whether a value is a seed or a generator."""
        is_generator = isinstance(value, np.random.Generator | np.random.RandomState)
        is_integer = isinstance(value, Integral) and not isinstance(value, bool)
        return is_generator or (is_integer and value >= 0)  # seeds of 128 bits are usual


Flag = Annotated[bool, Choice(False, True)]
Name = Annotated[str | None, Text(or_none=True)]
PositiveInt = Annotated[int, Count()]
Width = Annotated[int, Count(each=1)]  # of rows: memory must have room for one
Seed = Annotated[RandomState, Randomness()]


class Options(BaseEstimator):
    """Abstract base of what has constructor arguments: modules, estimators, transforms."""

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Refuse unknown arguments with a hint, before the constructor would without one."""
        _, *parameters = inspect.signature(cls.__init__).parameters.values()  # but self
        known = [parameter.name for parameter in parameters]
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            for name in options:
                if name not in known:
                    raise InputError(f"{cls.__name__} has no argument {name!r}{_hint(name, known)}")
        return super().__new__(cls)

    @property
    def label(self) -> str:
        """How error texts call the object: its class, and its name if it has one."""
        kind, name = type(self).__name__, getattr(self, "name", None)
        return f"{kind} '{name}'" if isinstance(name, str) and name else kind

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Constructor arguments by name; InputError if an own constructor does not keep one."""
        try:
            return super().get_params(deep)
        except AttributeError as error:
            if error.obj is not self or error.name is None:
                raise
            raise self._lacks(error.name) from None

    def _lacks(self, name: str) -> InputError:
        kind = type(self).__name__
        return InputError(
            f"{kind} does not keep its argument {name!r}; in {kind}.__init__ write self.{name} = "
            f"{name}, or call super().__init__({name}=...)"
        )

    def __repr__(self) -> str:
        changed = self.arguments_in_words(changed=True).items()
        return f"{type(self).__name__}({', '.join(f'{name}={text}' for name, text in changed)})"

    def arguments_in_words(self, *, changed: bool = False) -> dict[str, str]:
        """Constructor arguments by name, each in a line of 100 letters at most.

        With `changed` only those which are not as they are unless given.

        >>> from serkit.modules import GMM
        >>> GMM(3, tol=0.01).arguments_in_words(changed=True)
        {'n_components': '3', 'tol': '0.01'}
        """
        check_argument(self.label, "changed", changed, Choice(False, True))
        parameters = inspect.signature(type(self).__init__).parameters
        usual = {name: _brief(parameter.default) for name, parameter in parameters.items()}
        given = {name: _brief(value) for name, value in self.get_params(deep=False).items()}
        return {k: text for k, text in given.items() if not changed or text != usual.get(k)}

    def check_options(self) -> None:
        """Raise InputError for a constructor argument that is out of its range."""
        kind: Any = type(self)  # which mypy does not know to be hashable
        for name, constraint in _ranges(kind).items():
            if not hasattr(self, name):
                raise self._lacks(name)
            check_argument(self.label, name, getattr(self, name), constraint)


def _brief(value: Any) -> str:
    """A value's repr in a line of 100 letters at most: long lists and arrays by their ends."""
    with np.printoptions(threshold=6, edgeitems=2):
        return " ".join(_shortened.repr(value).split())


def check_argument(label: str, name: str, value: Any, constraint: Constraint) -> None:
    """Raise InputError unless an argument is what it may be.

    >>> from serkit.options import Count, check_argument
    >>> check_argument("Graph.fit", "rounds", 0, Count())
    Traceback (most recent call last):
    serkit.errors.InputError: Graph.fit: rounds must be an integer >= 1, got 0
    """
    if not constraint.accepts(value):
        raise InputError(f"{label}: {constraint.problem(name, value)}")


def of_update(value: Any, number: int) -> Any:
    """An option in an update, counted from 0: of a sequence one entry each, the last further on.

    >>> [of_update((200, 50), number) for number in range(3)]
    [200, 50, 50]
    """
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return value[min(number, len(value) - 1)] if several else value


def seed_of(random_state: RandomState) -> int:
    """A seed: the integer itself, else one drawn from a generator or from the operating system.

    >>> from serkit.options import seed_of
    >>> seed_of(7)
    7
    """
    if isinstance(random_state, Integral):
        return int(random_state)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**32, dtype=np.uint64))
    return int(np.random.default_rng(random_state).integers(2**32))


def generator_of(label: str, random_state: RandomState, seed: int | None = None) -> Generator:
    """The generator that an argument `random_state` stands for: itself, or a new one of its seed.

    None takes the `seed` given, or a fresh one from the operating system. InputError for anything
    else than `Randomness` allows.
    """
    check_argument(label, "random_state", random_state, Randomness())
    if isinstance(random_state, np.random.RandomState):
        random_state = seed_of(random_state)
    return np.random.default_rng(seed if random_state is None else random_state)


@cache  # as a transform checks its arguments for each batch
def _ranges(kind: Hashable) -> dict[str, Constraint]:
    """The ranges of a class's arguments, by name; a subclass's in place of its base's."""
    hints = get_type_hints(kind, include_extras=True)
    extras = ((name, e) for name, hint in hints.items() for e in getattr(hint, "__metadata__", ()))
    return {name: extra for name, extra in extras if isinstance(extra, Constraint)}


def _hint(name: str, known: Collection[str]) -> str:
    """What an unknown argument may have been meant to be, in words."""
    renamed = [new for new in _SERKET_NAMES.get(name, ()) if new in known]
    if meant := renamed or difflib.get_close_matches(name, known, n=1):
        return f"; did you mean {meant[0]!r}?"
    return f"; there are {', '.join(known)}"


def _has_room(n_values: int) -> bool:
    """Whether so many numbers of 8 bytes fit into memory, none of which is used for that."""
    try:
        np.empty(n_values)
    except (MemoryError, ValueError):  # ValueError: of more than an array can ever have
        return False
    return True


def as_numbers(
    label: str,
    name: str,
    value: Any,
    wanted: str = "finite numbers",
    *,
    finite: bool = True,
) -> np.ndarray:
    """An argument as a float64 array; InputError unless all are numbers, `finite` ones."""
    try:
        array = rows_in(value, name)
        numbers = array.astype(np.float64, copy=False) if array.dtype.kind in "biuf" else None
    except InputError:  # the text below says what is wanted
        numbers = None
    if numbers is None or (finite and not np.isfinite(numbers).all()):
        raise InputError(f"{label}: {name} must be {wanted}, got {in_words(value)}")
    return numbers


def called(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives that is an argument; InputError, which names it, where it fails."""
    try:
        return function(*arguments)
    except SerkitError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise InputError(f"{what} fails with {kind}: {error!s:.200}") from error


def in_words(value: Any) -> str:
    """A value of any kind in one short line, for error texts."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # it may be broken
        text = f"a {type(value).__name__}"
    return text[:_LINE]
