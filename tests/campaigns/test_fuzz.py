"""The campaign of odd calls in a small setting, and what it must be able to see."""

import os

import numpy as np
import pytest
import torch
from tqdm import tqdm

from tests.campaigns import entries, fuzz
from tests.campaigns.entries import Entry

N_CALLS = 300


def test_odd_calls_work_or_say_what_is_wrong(capsys):
    assert fuzz.report(seed=1, outcomes=fuzz.attack(1, range(N_CALLS))) == 0, (
        capsys.readouterr().out
    )


def test_new_public_names_are_found_without_being_listed():
    names = {entry.name for entry in entries.entries()}
    expected = {"GMM(n_components=)", "GMM.predict()", "Graph.fit()", "accuracy()", "spherical()"}
    assert expected <= names


def test_the_campaign_leaves_what_is_around_it_as_it_was():
    before = dict(os.environ), tqdm.monitor_interval, os.getcwd()
    assert len(list(fuzz.attack(1, range(1)))) == 1
    assert (dict(os.environ), tqdm.monitor_interval, os.getcwd()) == before


def wrong_error(value):
    return {}[value]


def no_number(value):
    return np.full(3, np.nan)


def slow(value):
    while True:
        pass


def rude(value):
    torch.set_default_dtype(torch.float64)


def greedy(value):
    value[:] = 0.0


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (wrong_error, "untyped error"),
        (no_number, "not finite"),
        (slow, "hang"),
        (rude, "global state"),
        (greedy, "arguments changed"),
    ],
)
def test_each_kind_of_fault_is_seen(function, kind, monkeypatch):
    monkeypatch.setattr(fuzz, "LIMIT_SECONDS", 0.1)
    value = "key" if function is wrong_error else np.ones(3)
    call = fuzz.Call("call", (value,), None, (lambda: function(value),))
    try:
        outcome = fuzz.outcome_of(0, Entry("function()", function), call)
    finally:
        torch.set_default_dtype(torch.float32)
    assert kind in outcome.kinds


def test_what_a_refused_call_has_changed_is_seen():
    gmm = entries.learnt(entries.GMM)

    def spoil():
        gmm.means_ += 1
        raise ValueError

    for steps in ((spoil,), (spoil, print)):  # also where the last step is not reached
        outcome = fuzz.outcome_of(0, Entry("spoil()", spoil), fuzz.Call("call", (), gmm, steps))
        assert "learnt changed" in outcome.kinds
