"""The pages about one run and about several."""

import base64
import json
import re
import warnings

import numpy as np
import pytest

from serkit import Graph, Module, Observation, Posterior, command
from serkit.errors import InputError, OutputError
from serkit.graph import report, summary
from serkit.messages import Data, Mixture
from serkit.modules import GMM
from tests.test_markup import Reader

ROWS = np.random.default_rng(0).normal(size=(40, 2)) + 9 * np.repeat([[0], [1]], 20, axis=0)
LABELS = np.repeat(["<b>cat</b>", "$dog$"], 20)
EVIL = "<img src=x onerror=alert(1)>"


class Warner(Module):
    """Sends its rows on, and warns at each update."""

    sends_up, takes_from_children = Data, (Mixture,)

    def learn(self, inputs, from_children):
        warnings.warn(f"careful, {EVIL}", stacklevel=1)
        return {"loss": float(len(self.history_))}

    def infer(self, inputs, from_children):
        return Posterior(up=inputs[0], down=(None,))


def train(out, seed=0, rounds=2, **options):
    low = Warner(name="warner").connect(Observation(ROWS, name="table"))
    gmm = GMM(2, labels=LABELS, random_state=seed, **options).connect(low)
    return Graph(gmm).fit(rounds, out=out, verbose=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two folders of runs, and something beside them that is none."""
    folder = tmp_path_factory.mktemp("runs")
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("default")  # which shows a text once
        for seed in (0, 1):
            train(folder / f"seed{seed}", seed, 2 + seed, tol=0.01 * (1 + seed))
    (folder / "notes").mkdir()
    return folder


def page_of(path):
    return Reader(path.read_text("utf-8"))


def test_a_run_has_a_page_that_needs_no_other_file(runs):
    text = (runs / "seed0" / "report.html").read_text("utf-8")
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert "<script" not in text
    assert "url(" not in text


def test_the_page_shows_every_picture_as_it_was_written(runs):
    read = page_of(runs / "seed0" / "report.html")
    sources = [value.partition(",")[2] for name, value in read.attributes if name == "src"]
    shown = {base64.b64decode(source) for source in sources}
    assert shown == {path.read_bytes() for path in (runs / "seed0").glob("*.png")}
    assert {"graph", "rounds", "confusion"} <= {v for n, v in read.attributes if n == "alt"}


def test_the_page_tells_settings_scores_time_and_versions(runs):
    read = page_of(runs / "seed0" / "report.html")
    history = json.loads((runs / "seed0" / "history.json").read_text())
    last = history[-1]["updates"][-1]
    for text in ("tol = 0.01", "n_components = 2", f"{last['accuracy']:.4g}", np.__version__):
        assert text in read.text
    for name in ("warner", "gmm"):
        spent = sum(u["seconds"] for r in history for u in r["updates"] if u["module"] == name)
        assert f"{name}{spent:.2f}" in read.text
    changed = re.findall(r'class="changed">(\w+) =', (runs / "seed0/report.html").read_text())
    assert changed == ["name", "labels", "n_components", "random_state", "tol"]


def test_texts_of_users_are_no_markup(runs):
    for path in (runs / "seed0/report.html", report.compare([runs / "seed0"], runs / "one.html")):
        read = page_of(path)
        assert f"careful, {EVIL}" in read.text
        assert not {"script", "b onerror", "onerror"} & {*read.tags}
        assert "onerror" not in [name for name, _ in read.attributes]


def test_warnings_are_in_the_history_and_told_once(runs):
    history = json.loads((runs / "seed0" / "history.json").read_text())
    heard = [u.get("warnings") for record in history for u in record["updates"]]
    assert heard[0] == [f"careful, {EVIL}"]
    assert [*summary.warnings_in(history)] == [("round 1, warner", f"careful, {EVIL}")]


def test_warnings_of_a_second_run_are_heard_though_shown_before(runs):
    assert "careful" in (runs / "seed1" / "history.json").read_text()


def test_a_report_that_fails_costs_nothing_else(tmp_path, monkeypatch):
    def fails(*_):
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(report, "page", fails)
    with pytest.warns(UserWarning, match=r"results without report\.html, which failed \(ZeroDiv"):
        train(tmp_path)
    assert (tmp_path / "run.json").exists()
    assert (tmp_path / "graph.png").exists()
    assert not (tmp_path / "report.html").exists()


def test_what_failed_in_the_results_is_in_the_report(tmp_path, monkeypatch):
    monkeypatch.setattr("serkit.plots.confusion", lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match=r"results without confusion\.png"):
        train(tmp_path)
    assert "results without confusion.png" in page_of(tmp_path / "report.html").text


# -- several runs ----------------------------------------------------------------------------------


def test_runs_are_compared_from_the_command_line(runs, capsys):
    folders = sorted(map(str, runs.glob("*")))
    assert command.main(["report", *folders, "--out", str(runs / "out.html")]) == 0
    assert capsys.readouterr().out.strip() == str(runs / "out.html")
    read = page_of(runs / "out.html")
    assert "2 runs: seed0, seed1" in read.text
    assert ("href", "seed0/report.html") in read.attributes
    assert "gmm tol0.010.02" in read.text
    assert "gmm random_state01" in read.text
    assert "gmm n_components" not in read.text  # in which they do not differ
    assert "notes" not in read.text
    texts = [(runs / f"seed{seed}" / "history.json").read_text() for seed in (0, 1)]
    scores = [json.loads(text)[-1]["updates"][-1]["log_likelihood"] for text in texts]
    assert f"{np.mean(scores):.4g} ± {np.std(scores):.3g}" in read.text
    best = re.findall(r'class="best">([-.\d]+)<', (runs / "out.html").read_text())
    assert f"{max(scores):.4g}" in best


def test_pages_are_beside_the_runs_unless_told_otherwise(runs, capsys):
    assert command.main(["report", str(runs / "seed0")]) == 0
    assert capsys.readouterr().out.strip() == str(runs / "comparison.html")
    assert "There is one run." in page_of(runs / "comparison.html").text


def test_runs_of_the_same_name_are_told_apart(tmp_path):
    history = [{"round": 1, "updates": [{"module": "gmm", "accuracy": 0.5}]}]
    for name in ("a", "b"):
        folder = tmp_path / name / "run"
        folder.mkdir(parents=True)
        (folder / "history.json").write_text(json.dumps(history))
    page = report.compare([tmp_path / "a/run", tmp_path / "b/run"], tmp_path / "page.html")
    assert "2 runs: a/run, b/run" in page_of(page).text


RECORD = [{"round": 1, "updates": [{"module": "gmm"}]}]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("history.json", "{", "cannot be read"),
        ("history.json", "[]", "holds no graph's history"),
        ("history.json", "[1]", "holds no graph's history"),
        ("history.json", '[{"round": 1}]', "holds no graph's history"),
        ("history.json", '[{"round": 1, "updates": [{}]}]', "holds no graph's history"),
        ("run.json", "[]", "does not hold what fit"),
        ("run.json", '{"settings": {"gmm": 1}}', "does not hold what fit"),
        ("run.json", '{"data": [[]]}', "does not hold what fit"),
        ("run.json", "\\", "cannot be read"),
    ],
)
def test_a_damaged_file_is_told_by_name(tmp_path, capsys, name, content, text):
    (tmp_path / "history.json").write_text(json.dumps(RECORD))
    (tmp_path / name).write_text(content)
    out = tmp_path / "page.html"
    assert command.main(["report", str(tmp_path), "--out", str(out)]) == 1
    assert re.search(f"{tmp_path / name} {text}", capsys.readouterr().err)
    assert not out.exists()


def test_no_runs_and_no_place_are_told(tmp_path, runs):
    with pytest.raises(InputError, match=r"none of .* is a folder that fit"):
        report.compare([tmp_path], tmp_path / "page.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write to"):
        report.compare([runs / "seed0"], tmp_path / "file" / "page.html")
