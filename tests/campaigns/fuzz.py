"""Odd calls of all that serkit offers: each works, or says what is wrong and changes nothing.

    python -m tests.campaigns.fuzz [--calls 10000] [--seed 0]
    python -m tests.campaigns.fuzz --seed 0 --only 1234    # one call again, and where it failed

Right are results that are finite, and errors of `serkit.errors` (or a TypeError or ValueError that
serkit raises itself). Counted as faults: other errors, NaN or infinity without an error, hangs,
changes of what is global (generators, default dtype, grad mode, warnings, folder, files, threads),
of arrays passed in, and of what a model had learnt before a call that is refused.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import io
import linecache
import multiprocessing
import os
import random
import resource
import signal
import tempfile
import threading
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import matplotlib as mpl
import numpy as np
import torch
from sklearn.base import BaseEstimator
from tqdm import tqdm

import serkit
import serkit.modules
from serkit import Graph, MixtureDensity, Module, Observation, Posterior, plots
from serkit.errors import SerkitError
from serkit.graph.inference import Prediction
from serkit.messages import Message
from serkit.module import Node
from tests.benchmarks.table import show
from tests.campaigns import entries, odd
from tests.campaigns.entries import Entry
from tests.helpers.saved import assert_same

LIMIT_SECONDS = 30
LIMIT_BYTES = 2**32  # beyond what is there at the start
# Of these a large number asks for much time, which is then meant.
LONG = {"epochs", "max_iter", "n_init", "rounds", "restarts", "n_steps", "n_split_merge"}
LONG |= {"log_prob.n_samples"}
FAULTS = "untyped error, not finite, hang, global state, arguments changed, learnt changed, crash"
KINDS = ["returned", "refused", *FAULTS.split(", ")]


class Hang(BaseException):
    """A call took too long."""


class Call(NamedTuple):
    """A call that can be made once, in steps; the last must not change anything if it fails."""

    text: str
    arguments: tuple[Any, ...]
    subject: Any
    steps: tuple[Callable[[], Any], ...]


class Outcome(NamedTuple):
    """What came of a call: "returned", "refused" or faults."""

    number: int
    entry: str
    kinds: tuple[str, ...]
    text: str
    error: str = ""
    place: str = ""


# -- calls -----------------------------------------------------------------------------------------


def call_of(entry: Entry, rng: np.random.Generator) -> Call:
    """An odd call."""
    if entry.option is not None:
        return _option_call(entry, rng)
    if entry.method is None:
        arguments = _arguments(entry.of.__name__, entry.of, rng)
        return _call(entry.name, None, entry.of, *arguments)
    is_new = rng.random() < 0.2
    subject = entries.made(entry.of) if is_new else entries.learnt(entry.of)
    function = getattr(subject, entry.method)
    arguments = _arguments(entry.of.__name__, function, rng)
    state = "new" if is_new else "learnt"
    if rng.random() < 0.2:  # after another call, which may have been refused
        with contextlib.suppress(Exception):
            function(*_arguments(entry.of.__name__, function, rng)[0])
        state += ", called before"
    return _call(f"{entry.name[:-1]} of {state} ", subject, function, *arguments)


def _option_call(entry: Entry, rng: np.random.Generator) -> Call:
    """The first use of an object with an odd option; or its next, when it had learnt without."""
    kind, option = entry.of, str(entry.option)
    value = _odd(option, entries.sound_arguments(kind).get(option), rng)
    text = f"{entry.name[:-1]}{_short(value)})"
    if issubclass(kind, Module) and rng.random() < 0.5:
        subject = entries.learnt(kind)
        steps = partial(subject.set_params, **{option: value}), partial(entries.used, subject)
        return Call(f"{text} of learnt", (value,), subject, steps)
    first_use = lambda: entries.used(entries.made(kind, **{option: value}))  # noqa: E731
    return Call(text, (value,), None, (first_use,))


def _call(text: str, subject: Any, function: Callable, args: list, options: dict) -> Call:
    shown = [_short(a) for a in args] + [f"{name}={_short(v)}" for name, v in options.items()]
    step = partial(function, *args, **options)
    return Call(f"{text}({', '.join(shown)})", (*args, *options.values()), subject, (step,))


def _arguments(
    owner: str, function: Callable, rng: np.random.Generator
) -> tuple[list[Any], dict[str, Any]]:
    """Positional and named arguments, mostly with one of them odd."""
    known = entries.parameters(function).values()
    parameters = [p for p in known if p.kind is not p.VAR_KEYWORD and p.name != "N_CHAR_MAX"]
    n_odd = min(len(parameters), rng.choice([0, 1, 2], p=[0.05, 0.75, 0.2]))
    odd_ones = rng.choice(len(parameters), n_odd, replace=False) if parameters else []
    args, options = [], {}
    for i, parameter in enumerate(parameters):
        value = entries.sound(owner, parameter.name)
        if i in odd_ones or (value is None and parameter.default is parameter.empty):
            is_long = f"{function.__name__}.{parameter.name}" in LONG
            value = _odd(parameter.name, value, rng, large=not is_long)
        elif parameter.default is not parameter.empty and rng.random() < 0.7:
            continue
        elif value is None:
            value = parameter.default
        if parameter.default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY:
            args.append(value)
        else:
            options[parameter.name] = value
    return args, options


def _odd(name: str, value: Any, rng: np.random.Generator, *, large: bool = True) -> Any:
    if isinstance(value, np.ndarray | list) and rng.random() < 0.7:
        return odd.spoilt(value, rng)
    return odd.anything(rng, large=large and name not in LONG)


def _short(value: Any) -> str:
    """A value in a few words."""
    with contextlib.suppress(Exception):
        if isinstance(value, np.ndarray | torch.Tensor) and len(value.shape):
            return f"{type(value).__name__}{tuple(value.shape)} {value.dtype}"
        return " ".join(f"{value!r:.50}".split())
    return type(value).__name__


# -- what a call must leave as it was --------------------------------------------------------------


def ambient() -> dict[str, Any]:
    """What is global in the process."""
    return {
        "default dtype": torch.get_default_dtype(),
        "grad mode": torch.is_grad_enabled(),
        "torch's generator": torch.get_rng_state().numpy().tobytes(),
        "torch's threads": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "NumPy's generator": np.random.get_state()[1].tobytes(),  # noqa: NPY002
        "Python's generator": hash(random.getstate()),
        "NumPy's errors": np.geterr(),
        "print options": np.get_printoptions(),
        "Matplotlib's settings": dict(mpl.rcParams),
        "warnings": list(warnings.filters),
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "open files": sorted(_open_files()),
        "threads": {thread.name for thread in threading.enumerate()},
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
    }


def _open_files() -> Iterator[str]:
    """What is open, but for fonts, which Matplotlib keeps."""
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the list itself
            name = os.readlink(f"/proc/self/fd/{number}")
            if not name.endswith((".ttf", ".otf", ".ttc", ".pfb", ".afm", "/fd")):
                yield name


def print_of(value: Any) -> Any:
    """What tells whether an argument was changed."""
    if isinstance(value, np.ndarray):
        array = np.asarray(value)  # of masked ones what is behind the mask
        return array.dtype, array.shape, repr(array) if array.dtype == object else array.tobytes()
    if isinstance(value, list | tuple):
        return type(value), [print_of(one) for one in value]
    if isinstance(value, dict):
        return {name: print_of(one) for name, one in value.items()}
    if isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_meta:
        with contextlib.suppress(RuntimeError, TypeError):
            return value.dtype, value.shape, value.detach().float().numpy().tobytes()
    return None


def learnt_by(subject: Any) -> Any:
    """A copy of what an object has learnt, and of what a module says by it."""
    if isinstance(subject, Graph):
        return [copy.deepcopy(subject.history)] + [learnt_by(node) for node in subject.modules]
    if isinstance(subject, Module):
        said = None
        with contextlib.suppress(Exception):
            said = subject.infer(subject.received_from_parents(), None).up
        return [_plain(subject.get_state()), said]
    return _plain({n: v for n, v in getattr(subject, "__dict__", {}).items() if n.endswith("_")})


def _plain(value: Any) -> Any:
    """A copy in which objects are dicts, without other nodes and without seeds."""
    if isinstance(value, Node):
        return type(value)
    if isinstance(value, Graph):
        return learnt_by(value)
    if isinstance(value, torch.nn.Module):
        return copy.deepcopy(value.state_dict())
    if isinstance(value, MixtureDensity):
        return _plain(vars(value))
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items() if name != "seed_"}
    return copy.deepcopy(value)


def is_finite(value: Any) -> bool:
    """Whether there is no NaN in a result, nor infinity but as the logarithm of 0."""
    if isinstance(value, Message | Prediction | Posterior):
        return is_finite(vars(value))
    if isinstance(value, Graph):
        return all(map(is_finite, value.modules))
    if isinstance(value, Module):  # moments of gradients are no result
        return is_finite({n: v for n, v in value.get_state().items() if n != "optimizer_"})
    if isinstance(value, BaseEstimator):
        return isinstance(value, Observation) or is_finite(learnt_by(value))
    if isinstance(value, dict):
        return all(
            not np.isnan(v).any()
            if isinstance(v, np.ndarray) and str(name).startswith(("log_", "lower_bound"))
            else is_finite(v)
            for name, v in value.items()
        )
    if isinstance(value, list | tuple):
        return all(map(is_finite, value))
    if isinstance(value, torch.Tensor):
        return bool(value.isfinite().all())
    if isinstance(value, float | np.ndarray) and np.asarray(value).dtype.kind in "fc":
        return bool(np.isfinite(value).all())
    return True


# -- the judge -------------------------------------------------------------------------------------


def outcome_of(number: int, entry: Entry, call: Call) -> Outcome:
    """Make a call and look at what came of it."""
    kinds, error, place = [], "", ""
    arguments, around = print_of(call.arguments), ambient()
    before = learnt_by(call.subject)
    *first_steps, last_step = call.steps
    try:
        with limited():
            for step in first_steps:
                step()
            before = learnt_by(call.subject)
            result = last_step()
            if not is_finite(result):
                kinds.append("not finite")
        kinds = kinds or ["returned"]
    except Hang:
        kinds.append("hang")
    except (Exception, SystemExit) as raised:
        kinds.append("refused" if is_typed(raised, entry) else "untyped error")
        error, place = f"{type(raised).__name__}: {raised!s:.160}", _place(raised)
        try:
            assert_same(before, learnt_by(call.subject))
        except AssertionError as changed:
            kinds.append("learnt changed")
            error += f" | {str(changed).strip().splitlines()[-1]:.80}"
    if print_of(call.arguments) != arguments:
        kinds.append("arguments changed")
    if (now := ambient()) != around:  # of what an error in a circle of references still holds
        gc.collect()
        now = ambient()
    if changed := [name for name in around if around[name] != now[name]]:
        kinds.append("global state")
        error += f" | {', '.join(changed)}"
    return Outcome(number, entry.name, tuple(kinds), call.text, " ".join(error.split()), place)


def is_typed(error: BaseException, entry: Entry) -> bool:
    """Whether an error is one of serkit's, or raised on purpose by whose method it is."""
    if isinstance(error, SerkitError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    is_raised = "raise " in linecache.getline(frames[-1].filename, frames[-1].lineno or 0)
    if entries.is_of_sklearn(entry):
        return not any(map(_is_own, frames))
    return is_raised and isinstance(error, TypeError | ValueError) and _is_own(frames[-1])


def _is_own(frame: traceback.FrameSummary) -> bool:
    """Whether a line of a traceback is one of serkit's."""
    folders = (os.path.dirname(str(package.__file__)) for package in (serkit, serkit.modules))
    return frame.filename.startswith(tuple(folders))


def _place(error: BaseException) -> str:
    """The last line of serkit's on the way to an error, and the last of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(frame)]
    named = [f"{f.filename.rsplit('/serkit/')[-1]}:{f.lineno}" for f in (own or frames)[-1:]]
    return named[0]


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Within it there is a limit to time and nothing is printed."""

    def stop(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def confined() -> Iterator[None]:
    """Within it there is a limit to memory, and the working folder is an empty one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT_BYTES, hard))
    folder = os.getcwd()
    nowhere = {"https_proxy": "http://127.0.0.1:9", "SERKIT_CACHE": "nothing", "SERKIT_DATA": ""}
    try:
        with (
            tempfile.TemporaryDirectory() as temporary,
            mock.patch.dict(os.environ, nowhere),  # nothing is downloaded
            mock.patch.object(tqdm, "monitor_interval", 0),  # without a thread of its own
            warnings.catch_warnings(),
            mock.patch("torch.compile", partial(torch.compile, backend="eager")),  # in no time
        ):
            warnings.simplefilter("ignore")
            plots.latents_3d(np.eye(3))  # what is imported now changes filters and environment
            for kind in (entries.Graph, entries.HAC):
                entries.learnt(kind)
            os.chdir(temporary)
            yield
    finally:
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# -- the campaign ----------------------------------------------------------------------------------


def attack(seed: int, numbers: range) -> Iterator[Outcome]:
    """Outcomes of numbered calls; each call is the same whichever others are made."""
    order = np.random.default_rng(seed).permutation(np.array(entries.entries(), dtype=object))
    with confined():
        for number in numbers:
            entry = order[number % len(order)]
            yield outcome_of(number, entry, call_of(entry, np.random.default_rng([seed, number])))


def attack_apart(seed: int, n_calls: int) -> Iterator[Outcome]:
    """The same in child processes, of which a call may end one."""
    spawn, number = multiprocessing.get_context("spawn"), 0
    while number < n_calls:
        receiver, sender = spawn.Pipe(duplex=False)
        numbers = range(number, min(number + 1000, n_calls))
        child = spawn.Process(target=_send, args=(sender, seed, numbers))
        child.start()
        sender.close()
        with contextlib.suppress(EOFError):
            while True:
                outcome = Outcome(*receiver.recv())
                number = outcome.number + 1
                yield outcome
        child.join()
        if number < numbers.stop:
            yield Outcome(number, "", ("crash",), "", f"exit code {child.exitcode}")
            number += 1


def _send(sender: Any, seed: int, numbers: range) -> None:
    for outcome in attack(seed, numbers):
        sender.send(tuple(outcome))
    sender.close()


def report(seed: int, outcomes: Iterable[Outcome]) -> int:
    """Print what came of all calls, and the faults, alike ones together; returns their number."""
    counts: Counter[str] = Counter()
    faults: dict[tuple, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        counts.update(outcome.kinds)
        if set(outcome.kinds) - {"returned", "refused"}:
            faults[outcome.kinds, outcome.place, outcome.error[:30]].append(outcome)
    show(f"Odd calls, seed {seed}", ["outcome", "calls"], [(k, counts[k]) for k in KINDS])
    for alike in sorted(faults.values(), key=lambda alike: alike[0].place):
        first, again = alike[0], f"--seed {seed} --only {alike[0].number}"
        print(f"{len(alike)} x {', '.join(first.kinds)} at {first.place or '?'} ({again})")
        print(f"    {first.text:.200}\n    {first.error:.300}")
    return sum(map(len, faults.values()))


def main() -> None:
    """Attack, or make one call again."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="number of a call to make again")
    options = parser.parse_args()
    if options.only is None:
        raise SystemExit(report(options.seed, attack_apart(options.seed, options.calls)) > 0)
    (outcome,) = attack(options.seed, range(options.only, options.only + 1))
    print(outcome.text, *outcome.kinds, outcome.error, outcome.place, sep="\n")


if __name__ == "__main__":
    main()
