"""Ranges of constructor arguments: what each accepts and its error text; unknown names."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import torch
from sklearn.base import clone

from serkit.errors import InputError
from serkit.modules import GMM, VAE
from serkit.options import (
    Choice,
    Constraint,
    Count,
    Counts,
    EachUpdate,
    FilePath,
    Flag,
    Function,
    Kind,
    Name,
    Number,
    Options,
    PositiveInt,
    Seed,
    Several,
    as_numbers,
    check_argument,
    generator_of,
    seed_of,
)

FUNCTION = Function(of=("x", "y"))
ODD = [np.ones(2), np.array(1), np.array([]), {}, {1}, object(), 1j, b"one", slice(1)]


@dataclass(eq=False, repr=False)
class Shift(Options):
    size: PositiveInt
    _: KW_ONLY
    scale: Annotated[float | str | Callable, Number(above=0, or_words=("learnt",))] = 1.0
    mode: Annotated[str, Choice("wrap", "edge")] = "edge"
    rows: object = None  # no range: anything will do
    name: str | None = None


@dataclass(eq=False, repr=False, kw_only=True)
class Stretch(Shift):
    mode: Annotated[str | None, Choice(None, "linear")] = None
    scale: Annotated[float, Number(at_least=0, below=1)] = 0.5


# -- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constraint", "good", "bad", "text"),
    [
        (Count(), [1, 7, np.int8(3), np.uint64(1)], [0, -1, 1.0, "1", True, np.True_], ">= 1"),
        (Count(at_least=0), [0, np.int64(0)], [-1, np.int64(-1), 0.0], "an integer >= 0"),
        (Counts(), [[1], (2, np.int32(3))], [(), [0], [2.0], "12", 5, [None]], "sequence of integ"),
        (Counts(or_empty=True), [[], (4,)], [[0], ""], "a sequence of integers >= 1"),
        (Number(), [-1e9, 0, np.float32(2), np.int64(1)], [np.nan, np.inf, "1", True], "a number"),
        (Number(above=0), [1e-9, 3], [0, -1, -np.inf], "a number > 0"),
        (Number(at_least=0, below=1), [0, 0.5], [-1e-9, 1, 2], "a number >= 0 and < 1"),
        (Number(above=0, or_words=("auto", "low")), [1, "low"], [0, "high"], ", or 'auto', or 'l"),
        (Flag.__metadata__[0], [True, False, np.True_], [None, "yes", 2], "one of False, True"),
        (Choice("a", "b"), ["a", np.str_("b")], ["c", None, 1, ["a"], max], "one of 'a', 'b'"),
        (
            EachUpdate(Choice("a", "b")),
            ["a", ["a"], ("a", np.str_("b"))],
            ["c", [], ["c"], [["a"]], np.array(["a"]), b"a", None, 1],
            "what must be one of 'a', 'b', or several, got",
        ),
        (
            EachUpdate(Count(), Count(at_least=0)),
            [1, [2], (1, 0, 3)],
            [0, [], [0], (2, -1), "12", b"1", np.array([1])],
            "an integer >= 1, or several, each further one an integer >= 0, got",
        ),
        (Choice(None, "a"), [None, "a"], ["b", 0], "one of None, 'a'"),
        (Name.__metadata__[0], [None, "", "low"], [3, True, ["low"]], "what must be a string, got"),
        (Count(), [2**63 - 1], [2**63, 10**400, Fraction(2)], "an integer >= 1"),
        (Number(), [np.float16(2), np.longdouble(2)], [10**400, -(10**400), Fraction(1, 3)], "a n"),
        (Count(each=4), [1, 1000], [2**60, 10**400, 0, 1.5], ""),
        (Counts(each=4), [[1000]], [[2**60], [0]], "a sequence of integers >= 1"),
        (Flag.__metadata__[0], [np.False_], [torch.ones(2), ["x"]], "one of False, True"),
        (FilePath(), ["a", Path("b")], ["", "a\0b", b"c", 3, None], "a path, as a string or a pa"),
        (FUNCTION, [max, lambda x, y=0, *z: 0], [int, 3, lambda: 0, lambda x, y, z: 0], "a functi"),
        (Kind(Options), [Shift(1)], [Shift, None, 3], "an Options"),
        (
            Several(Count()),
            [[], (1, 2)],
            [1, [0], [[1]], range(2), "12"],
            "a list, each an integer",
        ),
        (
            Seed.__metadata__[0],
            [None, 0, np.int64(2**40), np.random.default_rng(0), np.random.RandomState(0)],
            [-1, 0.5, "0", np.random],
            "an integer >= 0 or a NumPy random generator",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, Constraint) else "",
)
def test_ranges_accept_what_they_say_and_name_the_rest(constraint, good, bad, text):
    for value in good:
        check_argument("who", "what", value, constraint)
    for value in [*bad, *ODD]:
        with pytest.raises(InputError) as error:
            check_argument("who", "what", value, constraint)
        assert text in str(error.value)
        assert repr(value)[:60] in str(error.value)


@pytest.mark.parametrize("range_", [Count, Counts, Number])
def test_none_and_functions_will_do_only_where_a_range_says_so(range_):
    assert not range_().accepts(None)
    assert not range_().accepts(len)
    assert range_(or_none=True).accepts(None)
    assert range_(or_function_of=("x",)).accepts(len)
    assert not range_(or_none=True).accepts(len)
    assert not range_(or_function_of=("x",)).accepts(None)
    assert Choice("a", or_function_of=("x",)).accepts(len)


@pytest.mark.parametrize(
    ("constraint", "value", "text"),
    [
        (Count(), 0, "Graph.fit: rounds must be an integer >= 1, got 0"),
        (Count(each=9), 0, "Graph.fit: rounds must be an integer >= 1, got 0"),
        (Count(each=9), 2**50, f"Graph.fit: rounds={2**50} needs more memory than there is"),
        (Choice("pca"), "tsne", "Graph.fit: unknown rounds='tsne'; expected one of 'pca'"),
        (Number(or_words=("all",)), None, "Graph.fit: rounds must be a number, or 'all', got None"),
        (Counts(), "x" * 99, f"rounds must be a sequence of integers >= 1, got '{'x' * 59}"),
    ],
)
def test_texts(constraint, value, text):
    with pytest.raises(InputError) as error:
        check_argument("Graph.fit", "rounds", value, constraint)
    assert str(error.value).endswith(text)


class Broken:
    """What cannot be shown, compared or made an array."""

    def __repr__(self):
        raise RuntimeError("no text")

    __eq__ = __array__ = __hash__ = __repr__


@pytest.mark.parametrize("range_", [Choice("a", True), Number(), Count(), Counts(), FUNCTION])
def test_an_object_that_cannot_be_shown_is_told_by_its_class(range_):
    with pytest.raises(InputError, match=r"what.*a Broken"):
        check_argument("who", "what", Broken(), range_)
    with pytest.raises(InputError, match=r"what must be finite numbers, got a Broken"):
        as_numbers("who", "what", Broken())


@pytest.mark.parametrize("made", [np.random.default_rng, np.random.RandomState])
def test_a_generator_gives_seeds_and_goes_on(made):
    one, other = made(5), made(5)
    seeds = [seed_of(one) for _ in range(3)]
    assert seeds == [seed_of(other) for _ in range(3)]
    assert len({*seeds}) == 3
    first, second = (generator_of("who", one).random() for _ in range(2))
    assert first != second


def test_a_seed_is_itself_and_none_takes_the_one_given():
    assert seed_of(np.int64(7)) == 7
    assert seed_of(None) != seed_of(None)
    draw = np.random.default_rng(7).random()
    assert generator_of("who", 7).random() == generator_of("who", None, 7).random() == draw
    with pytest.raises(InputError, match=r"who: random_state must be .*, got 'x'"):
        generator_of("who", "x")


def test_numbers_are_finite_arrays():
    assert as_numbers("who", "what", [1, np.float32(2)]).tolist() == [1.0, 2.0]
    odd = [
        [1, np.nan],
        ["a"],
        [[1, 2], [3]],
        None,
        object(),
        10**400,
        [1 + 2j],
        np.ma.masked_equal([1, 2], 2),
    ]
    assert as_numbers("who", "what", torch.ones(2, requires_grad=True)).tolist() == [1.0, 1.0]
    for value in [*odd, torch.ones(2, device="meta")]:
        with pytest.raises(InputError, match=r"^who: what must be a weight per row, got "):
            as_numbers("who", "what", value, "a weight per row")


# -- classes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 0}, "Shift 'low': size must be an integer >= 1, got 0"),
        ({"scale": "wide"}, "Shift 'low': scale must be a number > 0, or 'learnt', got 'wide'"),
        ({"mode": "linear"}, "Shift 'low': unknown mode='linear'; expected one of 'wrap', 'edge'"),
    ],
)
def test_options_of_an_object_name_it(options, text):
    shift = Shift(np.int64(2), rows=np.ones(3), name="low")
    shift.check_options()
    shift.set_params(**options)
    for object_ in (shift, clone(shift)):
        with pytest.raises(InputError) as error:
            object_.check_options()
        assert str(error.value) == text


def test_a_subclass_states_ranges_in_place_of_its_bases():
    Stretch(1).check_options()
    Stretch(1, mode="linear", scale=0).check_options()
    for options in ({"mode": "edge"}, {"scale": "learnt"}, {"scale": 2.0}, {"size": 0}):
        with pytest.raises(InputError, match=rf"^Stretch: .*\b{next(iter(options))}\b"):
            Stretch(1).set_params(**options).check_options()
    Shift(1, scale=2.0).check_options()


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        (GMM, "K", "GMM has no argument 'K'; did you mean 'n_components'?"),
        (GMM, "itr", "GMM has no argument 'itr'; did you mean 'max_iter'?"),
        (VAE, "epoch", "VAE has no argument 'epoch'; did you mean 'epochs'?"),
        (VAE, "KL_param", "VAE has no argument 'KL_param'; did you mean 'alpha'?"),
        (VAE, "hidden_encoder_dim", "; did you mean 'hidden_sizes'?"),
        (GMM, "n_componets", "; did you mean 'n_components'?"),
        (Shift, "K", "Shift has no argument 'K'; there are size, scale, mode, rows, name"),
        (Shift, "sise", "; did you mean 'size'?"),
    ],
)
def test_unknown_names_get_a_hint(kind, name, text):
    with pytest.raises(InputError) as error:
        kind(2, **{name: 3})
    assert str(error.value).endswith(text)
