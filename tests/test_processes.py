"""Several processes that share the rows: what they learn, write and say together."""

import json
import os
import subprocess
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from serkit import Observation, processes
from serkit.errors import InputError
from tests.helpers import several

ROOT = Path(__file__).parents[1]


# -- the same numbers by however many processes ----------------------------------------------------


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """What 1, 2 and 3 processes learn: by number of processes, a list of what each has."""
    folder = tmp_path_factory.mktemp("models")
    for n in (1, 2, 3):
        several.run("models", folder, n)
    return {n: [dict(np.load(folder / f"{n}-{rank}.npz")) for rank in range(n)] for n in (1, 2, 3)}


EQUAL = ("full", "tied", "diag", "spherical", "float32", "ml", "variances", "stream", "missing")
EQUAL += ("twice", "starts among some", "exchanges", "classifier", "labelled", "mlda", "alignment")
EQUAL += ("markov", "under a markov model", "objective", "forecast", "path", "predicted")


@pytest.mark.parametrize("name", EQUAL)
@pytest.mark.parametrize("n_processes", [2, 3])
def test_parameters_and_scores_do_not_depend_on_the_number_of_processes(learnt, name, n_processes):
    (alone,) = learnt[1]
    for found in learnt[n_processes]:
        np.testing.assert_allclose(found[name], alone[name], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("n_processes", [2, 3])
def test_a_net_learns_from_the_mean_gradient_of_all_rows(learnt, n_processes):
    (alone,) = learnt[1]
    for found in learnt[n_processes]:
        np.testing.assert_allclose(found["ae"], alone["ae"], rtol=3e-6)  # float32, 20 steps


@pytest.mark.parametrize("n_processes", [2, 3])
def test_processes_agree_on_what_they_draw_apart(learnt, n_processes):
    first, *rest = learnt[n_processes]
    names = [name for name in first if name.startswith("together: ")]
    assert len(names) == 8
    for other in rest:
        for name in names:
            np.testing.assert_array_equal(other[name], first[name], err_msg=name)


@pytest.mark.parametrize("n_processes", [2, 3])
def test_a_vae_reaches_an_equal_loss(learnt, n_processes):
    """Noise differs, so that losses differ by what they vary from epoch to epoch at the end."""
    (alone,), found = learnt[1], learnt[n_processes][0]
    ends = [of["together: losses"][-20:] for of in (alone, found)]
    spread = np.std(ends[0]) + np.std(ends[1])
    assert abs(ends[0].mean() - ends[1].mean()) < 3 * spread
    assert ends[0].mean() < alone["together: losses"][0] - 30 * spread  # it has learnt


# -- sums ------------------------------------------------------------------------------------------


def test_sums_are_those_of_all_processes(tmp_path):
    assert several.run("sums", tmp_path, 3) == [""] * 3


def test_gradients_are_the_mean_of_all_processes(tmp_path):
    outputs = several.run("gradients", tmp_path, 3)
    assert not any("Warning" in output for output in outputs)


def test_there_is_no_sum_without_all_processes(tmp_path):
    *others, (died, _) = several.launch("vanish", tmp_path, 3)
    assert died == 7
    for status, output in others:
        assert status == 1
        assert "TrainingError: process" in output
        assert not any(line.startswith("sum") for line in output.splitlines())


# -- hosts -----------------------------------------------------------------------------------------


@pytest.fixture
def hosts():
    """Two network namespaces joined by a cable: for the programs in them, two machines."""
    names = [f"serkit{os.getpid()}{letter}" for letter in "ab"]
    ends = [f"cable netns {name}" for name in names]
    commands = [f"ip netns add {name}" for name in names]
    commands += [f"ip link add {ends[0]} type veth peer name {ends[1]}"]
    for number, name in enumerate(names, start=1):
        commands += [
            f"ip -n {name} addr add 10.77.0.{number}/24 dev cable",
            f"ip -n {name} link set cable up",
            f"ip -n {name} link set lo up",
        ]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True, capture_output=True)
        yield names
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces cannot be made here: {error}")
    finally:
        for name in names:
            with suppress(OSError):
                subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def test_two_hosts_learn_what_one_does(tmp_path, hosts):
    several.run("small", tmp_path, 1)
    several.run("small", tmp_path, 2, hosts=hosts)
    alone, *found = (np.load(tmp_path / f"{name}.npz") for name in ("1-0", "2-0", "2-1"))
    for of_host in found:
        np.testing.assert_allclose(of_host["gmm"], alone["gmm"], rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(of_host["ae"], alone["ae"], rtol=3e-6)  # float32, 5 steps


# -- what cannot work ------------------------------------------------------------------------------


REFUSED = {
    "rows": "InputError: 3 rows are too few for 4 processes",
    "sequences": "InputError: 2 sequences are too few for 4 processes",
    "lengths": "InputError: lengths must be integers >= 1 that add up to the 301 rows",
    "estimator": "GraphError: SklearnClusterer cannot learn from rows that 4 processes share",
    "groups": "GraphError: GroupSum cannot put together rows that 4 processes share",
    "markov": "InputError: MarkovModel: 4 processes share whole sequences",
    "cut": "MarkovModel: Observation cuts its rows elsewhere than between the sequences",
    "cuts": "rows of Observation 'a', Observation 'b' are cut differently",
    "batches": "InputError: AE: batch_size=2 makes 151 batches of the rows of 4 processes",
}


def test_what_cannot_be_shared_is_refused(tmp_path):
    several.run("refusals", tmp_path, 4)
    said = [json.loads((tmp_path / f"said-{rank}.json").read_text()) for rank in range(4)]
    for texts in said:
        assert texts.keys() == REFUSED.keys()
        for name, text in REFUSED.items():
            assert text in texts[name]


# -- shares ----------------------------------------------------------------------------------------


def shares(monkeypatch, n_processes, *arguments):
    monkeypatch.setattr(processes, "count", lambda: n_processes)
    found = []
    for rank in range(n_processes):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        found.append(processes.share(*arguments))
    return found


@pytest.mark.parametrize("n_processes", [1, 2, 3, 7])
@pytest.mark.parametrize("n_rows", [7, 10, 1000])
def test_shares_follow_each_other_and_are_about_equal(monkeypatch, n_processes, n_rows):
    found = shares(monkeypatch, n_processes, n_rows)
    assert (found[0].start, found[-1].stop) == (0, n_rows)
    assert all(one.stop == other.start for one, other in pairwise(found))
    sizes = [share.stop - share.start for share in found]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 0


@pytest.mark.parametrize("lengths", [(90, 5, 5), (5, 5, 90), (1, 1, 1), (3, 50, 2, 4, 4, 60, 1)])
def test_shares_hold_whole_sequences(monkeypatch, lengths):
    found = shares(monkeypatch, 3, sum(lengths), lengths)
    ends = np.cumsum([0, *lengths])
    assert (found[0].start, found[-1].stop) == (0, sum(lengths))
    assert all(one.stop == other.start for one, other in pairwise(found))
    assert all(share.start < share.stop and share.start in ends for share in found)


def test_alone_nothing_is_shared():
    x = np.arange(6.0)[:, None]
    assert (processes.count(), processes.rank(), processes.is_first()) == (1, 0, True)
    assert Observation(x, lengths=[2, 4]).share == slice(0, 6)
    for function in (processes.total, processes.largest, processes.gather, processes.gather_first):
        assert function(x) is x
    with pytest.raises(InputError, match=r"integers >= 1 that add up to the 6 rows, got \["):
        Observation(x, lengths=[2, 3])
    with pytest.raises(InputError, match=r"a sequence of integers >= 1, got \[7, -1\]"):
        Observation(x, lengths=[7, -1])
