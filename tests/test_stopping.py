"""Training that is stopped: everything as before, a line that says what is kept, the same bits."""

import os
import random
import re
import signal
import subprocess
import sys
import threading
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import MiniBatchKMeans

from serkit import Graph, Module, Observation, Posterior
from serkit.messages import Data
from serkit.modules import GMM, VAE
from serkit.stopping import AllOrNothing, raises_on_sigterm, tell, what_is_kept
from serkit.training import Callback
from tests.helpers.saved import assert_same

NET = {"epochs": 5, "batch_size": 30, "hidden_sizes": (8,), "likelihood": "gaussian"}


class InPlace(Module):
    """Changes all that it has learnt in place, by all kinds of random generators."""

    sends_up = Data

    def __init__(self, rng, *, name=None, random_state=None):
        super().__init__(name=name, random_state=random_state)
        self.rng = rng

    def learn(self, inputs, from_children):
        rows = inputs[0].array
        if not hasattr(self, "mean_"):
            self.mean_, self.pair_ = np.zeros(rows.shape[1]), (np.zeros(2), [np.zeros(2)])
            self.nested_ = {"seen": [], "sums": {"rows": np.zeros(1)}}
            self.weight_ = torch.zeros(3, requires_grad=True)
            self.optimizer_ = torch.optim.Adam([self.weight_], lr=0.1)
            self.generators_ = [
                np.random.default_rng(0),
                np.random.RandomState(0),
                random.Random(0),
                torch.Generator().manual_seed(0),
            ]
            self.estimator_ = MiniBatchKMeans(2, n_init=1, random_state=0)
        own, legacy, plain, torchs = self.generators_
        self.mean_ += self.rng.normal() + own.normal() + legacy.normal() + plain.random()
        for array in (self.pair_[0], self.pair_[1][0], self.nested_["sums"]["rows"]):
            array += 1
        self.nested_["seen"].append(len(rows))
        self.nested_[len(self.history_)] = True
        self.optimizer_.zero_grad()
        (self.weight_ - torch.rand(3, generator=torchs)).square().sum().backward()
        self.optimizer_.step()
        self.estimator_.partial_fit(rows)
        return {"loss": float(self.mean_.sum())}

    def infer(self, inputs, from_children):
        if self.name == "broken":
            raise KeyboardInterrupt
        return Posterior(up=Data(inputs[0].array + self.mean_), down=(None,))

    def numbers(self):
        """All that it has learnt, optimiser and generators as their states."""
        own, legacy, plain, torchs = self.generators_
        states = own.bit_generator.state, legacy.get_state(), plain.getstate(), torchs.get_state()
        given = self.rng.bit_generator.state, self.optimizer_.state_dict()
        names = ("mean_", "pair_", "nested_", "weight_", "history_", "message_up")
        estimator = vars(self.estimator_).items()
        centres = {key: value for key, value in estimator if key.endswith("_")}
        return [states, given, centres, *(getattr(self, name) for name in names)]


def test_what_is_changed_in_place_is_put_back_in_place():
    rows = Observation(np.random.default_rng(1).normal(size=(20, 3)))
    module = InPlace(np.random.default_rng(2)).connect(rows).update()
    before, twin = deepcopy(module.numbers()), deepcopy(module)
    held = module.mean_, module.nested_["seen"], module.weight_
    module.name = "broken"
    with pytest.raises(KeyboardInterrupt):
        module.update()
    module.name = None
    assert_same(before, module.numbers())
    now = module.mean_, module.nested_["seen"], module.weight_
    assert all(one is other for one, other in zip(held, now, strict=True))
    assert_same(twin.update().numbers(), module.update().numbers())


def test_what_has_a_row_per_data_row_is_not_copied():
    module = GMM(2, random_state=0).fit(np.random.default_rng(0).normal(size=(20, 2)))
    copies = [value for way in AllOrNothing(module).back for value in way.args]
    assert any(np.array_equal(value, module.means_) for value in copies)
    assert not any(np.array_equal(value, module.responsibilities_) for value in copies)


def spoil(module, undo):
    with undo:
        module.means_ += 1
        raise KeyboardInterrupt


def test_a_second_ctrl_c_does_not_stop_what_puts_back():
    module = GMM(2, random_state=0).fit(np.random.default_rng(0).normal(size=(20, 2)))
    means = module.means_.copy()
    undo = AllOrNothing(module)
    undo.back.insert(0, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        spoil(module, undo)
    np.testing.assert_array_equal(module.means_, means)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# -- graphs ----------------------------------------------------------------------------------------


class Stop(Callback):
    """Sends this process a signal: in an epoch of a round, or after one."""

    def __init__(self, round_, epoch=None, number=signal.SIGINT):
        self.round_, self.epoch, self.number = round_, epoch, number

    def on_epoch(self, graph, module, epoch, terms):
        curve = module.loss_curve_
        if self.epoch and (curve[-1]["update"], curve[-1]["epoch"]) == (self.round_, self.epoch):
            self.epoch = 0
            signal.raise_signal(self.number)

    def on_round(self, graph, record):
        if self.epoch is None and record["round"] == self.round_:
            signal.raise_signal(self.number)


def make(x, **options):
    vae = VAE(2, random_state=0, **{**NET, **options}).connect(Observation(x))
    return Graph(GMM(3, n_init=1, random_state=0).connect(vae))


def state(graph):
    return [node.get_state() for node in graph.modules[1:]], graph.history, graph.first_latents


@pytest.mark.parametrize("checkpoint", [True, False])
def test_the_same_call_after_ctrl_c_gives_the_bits_of_a_run_never_stopped(x, tmp_path, checkpoint):
    whole, graph = make(x).fit(4, verbose=False), make(x)
    options = {"checkpoint": tmp_path / "checkpoint"} if checkpoint else {}
    with pytest.raises(KeyboardInterrupt):
        graph.fit(4, callbacks=[Stop(2, epoch=3)], verbose=False, **options)
    assert len(graph["vae"].loss_curve_) == 5
    assert [len(graph[name].history_) for name in ("vae", "gmm")] == [1, 1]
    graph.fit(4 if checkpoint else 3, verbose=False, **options)
    assert_same(state(graph), state(whole))
    assert len(graph["vae"].loss_curve_) == 20


def test_ctrl_c_is_told_in_a_line_and_reaches_the_caller(x, tmp_path, capsys):
    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        make(x).fit(3, checkpoint=path, callbacks=[Stop(2)], verbose=False)
    (line,) = capsys.readouterr().err.splitlines()
    kept = f"Graph.fit stopped: the graph keeps 2 of 3 rounds, and {path} has the rounds that were"
    assert line == f"{kept} saved; the same call goes on from there"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, 3, None, 1), "graph is as before the call, since no round was whole; with checkp"),
        ((0, 3, "p", 1), "since no round was whole; the same call starts again$"),
        ((2, 5, None, 1), r"keeps 2 of 5 rounds but no file has them; fit\(3\) goes on .*; with"),
        ((5, 5, None, 1), "keeps 5 of 5 rounds; with checkpoint="),
        ((0, 5, None, 3), "as before the call, since it takes over one of the whole runs; with c"),
        ((1, 1, None, 3), "the graph keeps 1 of 1 rounds; with checkpoint"),
        ((0, 5, __file__, 1), "no round was whole, and .* the same call goes on from there"),
        ((0, 5, "p", 3), r"whole runs, and p\.run0, \.\.\., have the rounds that were saved; the"),
    ],
)
def test_the_line_says_how_to_go_on(arguments, text):
    assert re.search(text, what_is_kept(*arguments))


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from serkit import Graph, Observation
from serkit.modules import GMM
from tests.test_stopping import Stop

gmm = GMM(1, random_state=0).connect(Observation(np.random.default_rng(0).normal(size=(9, 2))))
Graph(gmm).fit(3, callbacks=[Stop(1)], checkpoint=sys.argv[2], verbose=False)
"""


def test_a_script_ends_with_a_line_and_not_with_a_traceback(tmp_path):
    script, path = tmp_path / "script.py", tmp_path / "checkpoint"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[1]
    command = [sys.executable, script, root, path]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT
    (line,) = done.stderr.splitlines()
    assert line.startswith("Graph.fit stopped: the graph keeps 1 of 3 rounds, and ")
    assert len(Graph.load(path).history) == 1


def test_only_the_interrupt_that_was_told_is_quiet_and_only_as_long_as_it_is_there(capsys):
    stop = KeyboardInterrupt()
    tell(stop, "kept")
    sys.excepthook(KeyboardInterrupt, stop, None)
    assert capsys.readouterr().err == "kept\n"
    sys.excepthook(ValueError, ValueError("other"), None)
    assert capsys.readouterr().err == "ValueError: other\n"
    del stop
    assert sys.excepthook is sys.__excepthook__


def test_sigterm_is_told_in_a_line_and_ends_the_process(tmp_path):
    rows, path = Observation(np.random.default_rng(0).normal(size=(9, 2))), tmp_path / "checkpoint"
    if os.fork() == 0:
        os.dup2(os.open(tmp_path / "said", os.O_CREAT | os.O_WRONLY), 2)
        sys.stderr = os.fdopen(2, "w")
        stop = Stop(1, number=signal.SIGTERM)
        Graph(GMM(1).connect(rows)).fit(3, callbacks=[stop], checkpoint=path, verbose=False)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGTERM
    (line,) = (tmp_path / "said").read_text().splitlines()
    assert line.startswith("Graph.fit stopped: the graph keeps 1 of 3 rounds, and ")
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "said"]


def test_no_handler_stays_and_a_users_own_is_left_alone(x):
    def look():
        return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    before, within = look(), []
    graph = Graph(GMM(2, random_state=0).connect(Observation(x)))
    graph.fit(1, callbacks=[lambda graph, record: within.append(look())], verbose=False)
    assert look() == before
    assert within[0][0] is before[0]
    assert within[0][1] is not before[1]
    in_thread = threading.Thread(target=lambda: graph.fit(1, verbose=False))
    in_thread.start()
    in_thread.join()
    assert len(graph.history) == 2
    own = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with raises_on_sigterm():
            signal.raise_signal(signal.SIGTERM)  # which the program ignores
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, own)
