"""What a page shows of a graph: its rows, latents, nets, mixtures, messages and rounds.

Everything becomes JSON and a `Blob` of arrays, for a number of rows that a page can hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import metrics
from ..arrays import some_rows
from ..errors import InputError, NotReadyError, SerkitError
from ..messages import Categorical, Data, Gaussian, Message, Mixture
from ..module import Module, Node, messages_to
from ..observation import Observation
from ..reading import clusters_in, labels_in
from ..saving.snapshot import Run
from . import nets
from .nets import Nets
from .packing import Blob

Json = dict[str, Any]
Recognise = Callable[..., dict[str, Message]]  # of rows of each observation, by module
Reconstruct = Callable[..., dict[str, np.ndarray]]  # the same, by observation

_MOST_GREYS = 5_000_000  # pixels of a page that have all 256 levels
_MOST_VALUES = 2**25  # of an observation's rows in a page
_MOST_EXPECTED = 2**19  # of values expected of each row
_MOST_SLIDERS = 40
_MOST_DIMS = 256  # of a mixture whose covariances are in a page
_QUANTILES = (0.5, 99.5)  # percent: the ends of a slider


@dataclass
class Shown:
    """The rows that are shown, and what the graph says of them; each message has a row for each.

    Attributes
    ----------
    rows : np.ndarray, shape (n,)
        Their numbers.
    up : dict of str to Message
        What each node sends up.
    classes : dict of str to np.ndarray
        P(class | row) by all that is known, (n, K), of modules that have classes.
    told : dict of str to dict of str to np.ndarray
        P(class | row) that a child says to a module, by module and child.
    """

    rows: np.ndarray
    up: dict[str, Message]
    classes: dict[str, np.ndarray] = field(default_factory=dict)
    told: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


def of_training(run: Run, most: int) -> Shown:
    """The training rows, by the messages that were last sent."""
    for node in run.names.values():
        if isinstance(node, Observation) and node.data is None:
            raise NotReadyError(
                f"{node.label}: it was loaded without its rows; give them, as in "
                "Graph.load(path, data=[rows]) or explore(path, rows=[rows])"
            )
        if node.message_up is None and node.sends_up is not None:
            raise NotReadyError(f"{node.label} has learnt nothing yet: call fit first")
    n_rows = next(len(o.data) for o in _observations(run).values() if o.data is not None)
    shown = Shown(some_rows(n_rows, _room(run, most)), {})
    for name, node in run.names.items():
        if node.message_up is not None and node.message_up.n_rows == n_rows:
            shown.up[name] = _taken(node.message_up, shown.rows)
        if isinstance(node, Module) and node.posterior is not None:
            classes = node.posterior.classes
            if classes is not None and classes.n_rows == n_rows:
                shown.classes[name] = np.exp(classes.log_prob[shown.rows])
    for name, node in run.modules.items():
        for child_name, child in run.learnt.items():
            for message in messages_to(node, [child]) if node in child.parents else []:
                if isinstance(message, Categorical) and message.n_rows == n_rows:
                    said = np.exp(message.log_prob[shown.rows])
                    shown.told.setdefault(name, {})[child_name] = said
    return shown


def of_new(run: Run, rows: Sequence, most: int, recognise: Recognise) -> Shown:
    """New rows, by what the graph infers of them."""
    given = [
        None if values is None else node.new_rows(values, name)
        for (name, node), values in zip(_observations(run).items(), rows, strict=False)
    ]
    if len(given) != len(_observations(run)) or not any(given):
        listed = ", ".join(_observations(run))
        raise InputError(
            f"explore: rows= must have an array for each of the observations {listed}, got "
            f"{len(rows)}"
        )
    chosen = some_rows(next(m.n_rows for m in given if m is not None), _room(run, most))
    taken = [None if message is None else _taken(message, chosen) for message in given]
    messages = recognise(*taken)
    up = {name: message for name, message in messages.items() if message.n_rows == len(chosen)}
    classes = {
        name: np.exp(message.log_prob)
        for name, message in up.items()
        if isinstance(message, Categorical)
    }
    return Shown(chosen, up, classes)


def _taken(message: Message, rows: np.ndarray) -> Message:
    return message.map_rows(lambda values: values[rows])


def _room(run: Run, most: int) -> int:
    """How many rows a page has room for, `most` at most."""
    largest = max(observation.n_outputs for observation in _observations(run).values())
    return max(min(most, _MOST_VALUES // largest), 1)


def _observations(run: Run) -> dict[str, Observation]:
    return {name: node for name, node in run.names.items() if isinstance(node, Observation)}


# -- all of it -------------------------------------------------------------------------------------


@dataclass
class Contents:
    """Makes what a page holds: `json` refers to arrays in `blob`, nets are in `nets`."""

    run: Run
    shown: Shown
    blob: Blob
    nets: Nets
    recognise: Recognise
    reconstruct: Reconstruct
    labels: ArrayLike | None = None
    columns: Mapping[str, ArrayLike] = field(default_factory=dict)

    def json(self) -> Json:
        """All that a page shows."""
        spaces = [self._space(name) for name in _spaces(self.run, self.shown.up)]
        n_all = max(observation.n_rows for observation in _observations(self.run).values())
        return {
            "rows": self.blob.add(self.shown.rows, "i4"),
            "n_rows": len(self.shown.rows),
            "n_all": n_all,
            "nodes": [self._node(name) for name in self.run.names],
            "observations": [self._observation(name) for name in _observations(self.run)],
            "spaces": spaces,
            "columns": self._columns(),
            "classes": self._classes(),
            "history": [_brief(record) for record in self.run.history],
            "expected": self._expectations(),
        }

    # -- the graph -------------------------------------------------------------------------------

    def _node(self, name: str) -> Json:
        """A node of the drawing, with what it last sent and reported."""
        node = self.run.names[name]
        name_of = {other: key for key, other in self.run.names.items()}
        up = self.shown.up.get(name) or node.message_up
        entry: Json = {
            "name": name,
            "kind": type(node).__name__,
            "parents": [name_of[parent] for parent in node.parents],
            "up": None if up is None else _summary(up),
            "down": {},
            "report": {},
        }
        if isinstance(node, Observation):
            entry["facts"] = f"{node.n_rows:,} rows of {_by_times(node.row_shape)}"
        elif isinstance(node, Module):
            n_updates = len(node.history_)
            state = f"{n_updates} update{'s' if n_updates != 1 else ''}"
            entry["facts"] = f"frozen, {state}" if node.frozen else state
            entry["report"] = _numbers(node.history_[-1]) if node.history_ else {}
            down = () if node.posterior is None else node.posterior.down
            for parent, message in zip(node.parents, down, strict=False):
                if message is not None:
                    entry["down"][name_of[parent]] = _summary(message)
        return entry

    # -- rows ------------------------------------------------------------------------------------

    def _observation(self, name: str) -> Json:
        """The rows of an observation: images as bytes, anything else as numbers."""
        node = _observations(self.run)[name]
        entry: Json = {"name": name, "shape": list(node.row_shape), "size": node.n_outputs}
        message = self.shown.up.get(name)
        if not isinstance(message, Data):  # none was given
            return {**entry, "kind": "table", "rows": None, "low": 0, "high": 1}
        rows = message.array.reshape(message.n_rows, -1)
        seen = rows[message.is_observed]
        if message.observed is not None:
            entry["observed"] = self.blob.add(message.observed, "u1")
        if node.image_shape is not None:
            low, high = float(seen.min()), float(seen.max())
            levels = 255 if rows.size <= _MOST_GREYS else 63  # fewer compress better
            grey = np.round((rows - low) / ((high - low) or 1.0) * levels).clip(0, levels)
            grey = np.round(grey * (255 / levels))
            shape = node.image_shape if len(node.image_shape) == 3 else (1, *node.image_shape)
            image = {"kind": "image", "image": list(shape), "low": low, "high": high}
            return {**entry, **image, "rows": self.blob.add(grey, "u1")}
        names = getattr(node, "feature_names_in_", range(node.n_outputs))
        entry["names"] = [str(feature)[:40] for feature in names]
        is_counts = bool((seen >= 0).all() and (seen == np.round(seen)).all()) and seen.max() > 1
        entry["kind"] = "counts" if is_counts and node.n_outputs > 8 else "table"
        entry["low"], entry["high"] = seen.min(axis=0).tolist(), seen.max(axis=0).tolist()
        if is_counts and seen.max() < 256:
            entry["rows"] = self.blob.add(rows, "u1")
        else:
            spread = seen.std(axis=0).min(initial=np.inf, where=seen.std(axis=0) > 0)
            entry["rows"] = self.blob.add_within(rows, 1e-4 * float(min(spread, 1e6)))
        return entry

    def _columns(self) -> list[Json]:
        """What points can be coloured by: clusters, labels, confidence, and what was given."""
        labels = self._labels()
        found: dict[str, Any] = {}
        for name in reversed(self.shown.classes):  # the topmost first
            probabilities = self.shown.classes[name]
            names = getattr(self.run.names[name], "classes_", None)
            clusters = probabilities.argmax(axis=1)
            found[f"cluster ({name})"] = _matched(clusters, probabilities.shape[1], names, labels)
        if labels is not None:
            found["label"] = _classes_of(labels)
        for name in reversed(self.shown.classes):
            found[f"confidence ({name})"] = self.shown.classes[name].max(axis=1)
        for title, values in self.columns.items():
            found[str(title)] = self._given(values, title)
        return [{"name": title, **self._column(values)} for title, values in found.items()]

    def _column(self, values: Any) -> Json:
        if isinstance(values, np.ndarray):
            return {"kind": "number", "values": self.blob.add_within(values, 1e-3 * np.ptp(values))}
        codes, names, colours = values
        return {
            "kind": "class",
            "values": self.blob.add(codes, "i4"),
            "names": names,
            "colours": colours,
        }

    def _labels(self) -> np.ndarray | None:
        """The labels of the shown rows: those given, else the last that a module scores by."""
        if self.labels is not None:
            return self._of_shown(clusters_in(self.labels, "explore: labels"), "labels")
        for node in reversed(self.run.names.values()):
            labels = getattr(node, "labels", None)
            if labels is not None and len(labels) > self.shown.rows.max():
                return np.asarray(labels)[self.shown.rows]
        return None

    def _given(self, values: ArrayLike, title: str) -> Any:
        """A column that was given: classes where it has words or few integers, else numbers."""
        array = self._of_shown(np.asarray(values), f"columns[{title!r}]")
        if array.dtype.kind == "f":
            if not np.isfinite(array).all():
                raise InputError(f"explore: columns[{title!r}] must be finite numbers or classes")
            return array.astype(np.float32)
        is_few = len(np.unique(array)) <= 40
        return _classes_of(array) if is_few or array.dtype.kind not in "iu" else array * 1.0

    def _of_shown(self, values: np.ndarray, what: str) -> np.ndarray:
        """The values of the shown rows, of one value a row."""
        n_rows = max(observation.n_rows for observation in _observations(self.run).values())
        if values.shape == (len(self.shown.rows),):
            return values
        if values.ndim != 1 or len(values) <= self.shown.rows.max():
            raise InputError(
                f"explore: {what} must have a value for each of {n_rows} rows, got shape "
                f"{values.shape}"
            )
        return values[self.shown.rows]

    def _classes(self) -> list[Json]:
        """P(class | row) of each module that has classes, and what its children say of them."""
        entries = []
        for name, probabilities in self.shown.classes.items():
            told = self.shown.told.get(name, {})
            names = getattr(self.run.names[name], "classes_", range(probabilities.shape[1]))
            entries.append(
                {
                    "module": name,
                    "names": [str(one) for one in names],
                    "probabilities": self.blob.add(probabilities, "f2"),
                    "told": {child: self.blob.add(said, "f2") for child, said in told.items()},
                }
            )
        return entries

    # -- latents ---------------------------------------------------------------------------------

    def _space(self, name: str) -> Json:
        """A space of latents: where rows are in it, projections, nets, the mixture over it."""
        node, z = self.run.names[name], _latents(self.shown.up[name])  # (n, D)
        low, high = np.percentile(z, _QUANTILES, axis=0)
        spread = float(z.std())
        order = np.argsort(-z.std(axis=0), kind="stable")[:_MOST_SLIDERS]
        mixture, clusters = self._mixture(name)
        var = getattr(self.shown.up[name], "var", None)
        variances = 0.0 if var is None else var.mean(axis=0)
        groups = self._labels() if self._labels() is not None else clusters
        return {
            "name": name,
            "is_classes": node.sends_up is Categorical,
            "n_dims": z.shape[1],
            "latents": self.blob.add_within(z, 1e-4 * spread),
            "low": low.tolist(),
            "high": high.tolist(),
            "sliders": sorted(order.tolist()),
            "names": _dimension_names(node, z.shape[1]),
            "projections": [
                {
                    key: values if key == "name" else self.blob.add(values, "f4")
                    for key, values in one.items()
                }
                for one in nets.projections(
                    z, groups, variances, scaled=isinstance(node, Observation)
                )
            ],
            "decoder": self.nets.decoder(name, z),
            "encoder": self.nets.encoder(name, self.shown.up),
            "mixture": mixture,
            "rounds": self._rounds(name, None if mixture is None else mixture["module"]),
        }

    def _mixture(self, name: str) -> tuple[Json | None, np.ndarray | None]:
        """The mixture over a space by the last module that sends one down, and its clusters."""
        node = self.run.names[name]
        for child_name, child in reversed(self.run.learnt.items()):
            if node not in child.parents or child_name not in self.shown.classes:
                continue
            message = child.messages_down[child.parents.index(node)] if child.posterior else None
            if not isinstance(message, Mixture) or message.means.shape[1] > _MOST_DIMS:
                continue
            assert message.log_weights is not None
            probabilities = self.shown.classes[child_name]
            k = len(message.means)
            owners = getattr(child, "component_classes_", np.arange(k))
            names = getattr(child, "classes_", range(probabilities.shape[1]))
            mixture = {
                "module": child_name,
                "weights": np.exp(message.log_weights).tolist(),
                "means": self.blob.add(message.means, "f4"),
                "covariances": self.blob.add(message.covariances, "f4"),
                "owners": np.asarray(owners).tolist(),
                "names": [str(one) for one in names],
            }
            return mixture, probabilities.argmax(axis=1)
        return None, None

    def _rounds(self, name: str, mixture: str | None) -> list[Json]:
        """Where latents and clusters were after each round, of the rows that were kept."""
        entries = []
        place_of = {row: place for place, row in enumerate(self.shown.rows.tolist())}
        for kept in self.run.latents_by_round:
            latents = kept["latents"].get(name)
            places = [place_of.get(row, -1) for row in kept["rows"].tolist()]
            is_shown = np.array(places) >= 0
            if latents is None or not is_shown.any():
                continue
            entry: Json = {
                "round": kept["round"],
                "rows": self.blob.add(np.array(places)[is_shown], "i4"),
                "latents": self.blob.add(latents[is_shown], "f2"),
            }
            clusters = kept["clusters"].get(mixture)
            if clusters is not None:
                entry["clusters"] = self.blob.add(clusters[is_shown], "i4")
            entries.append(entry)
        return entries

    # -- other modalities ------------------------------------------------------------------------

    def _expectations(self) -> list[Json]:
        """What one modality alone lets expect of each other one.

        Of tables and counts it is their mean in each cluster, so that the page can say it of any
        latents, and where there is room the values of each row. Of images, for which there is a
        decoder, it is the most probable cluster, whose mean is decoded.
        """
        observations = _observations(self.run)
        known = {name: self.shown.up[name] for name in observations if name in self.shown.up}
        if len(known) < 2:
            return []
        entries = []
        for seen, message in known.items():
            rows = [message if name == seen else None for name in observations]
            try:
                predicted, classes = self.reconstruct(*rows), self.recognise(*rows)
            except SerkitError:  # a module that cannot do without one of them
                continue
            for name, values in predicted.items():
                if name == seen:
                    continue
                entry: Json = {"from": seen, "of": name, "by_cluster": {}}
                flat = values.reshape(len(values), -1)
                is_image = observations[name].image_shape is not None
                if not is_image and flat.size <= _MOST_EXPECTED:
                    entry["values"] = self.blob.add_within(flat, 1e-3 * float(flat.std() or 1))
                for module, said in classes.items():
                    if isinstance(said, Categorical):
                        entry["by_cluster"][module] = self._by_cluster(
                            said, None if is_image else flat
                        )
                entries.append(entry)
        return entries

    def _by_cluster(self, said: Categorical, values: np.ndarray | None) -> Json:
        """P(class | row) of each row, and the mean values of each class, if there are some."""
        probabilities = np.exp(said.log_prob)
        found: Json = {"probabilities": self.blob.add(probabilities, "f2")}
        if values is not None:
            weights = probabilities.sum(axis=0)[:, None]
            means = probabilities.T @ values / np.maximum(weights, 1e-9)  # (K, V)
            found["means"] = self.blob.add(means, "f3")
        return found


# -- small ones ------------------------------------------------------------------------------------


def _spaces(run: Run, up: dict[str, Message]) -> list[str]:
    """The nodes whose messages up are shown as points, the topmost first."""
    gaussian = [name for name, message in up.items() if isinstance(message, Gaussian)]
    if gaussian:
        return gaussian[::-1]
    above = [parent for m in run.learnt.values() if m.sends_down is Mixture for parent in m.parents]
    mixed = [name for name, m in up.items() if isinstance(m, Data) and run.names[name] in above]
    classes = [name for name, message in up.items() if isinstance(message, Categorical)]
    if mixed or classes:
        return (mixed or classes)[::-1]
    raise InputError(
        "explore: no module has latents or classes, and no mixture stands on the data; there is "
        "nothing to draw as points. Put an AE, a VAE or a GMM into the graph, or look at "
        "graph.pictures()"
    )


def _latents(message: Message) -> np.ndarray:
    """Latent means, class probabilities, or rows themselves, (n, D)."""
    if isinstance(message, Categorical):
        return np.exp(message.log_prob)
    values = message.mean if isinstance(message, Gaussian) else message.array  # type: ignore[attr-defined]
    return values.reshape(len(values), -1)


def _dimension_names(node: Node, n_dims: int) -> list[str]:
    names = getattr(node, "feature_names_in_", None) if isinstance(node, Observation) else None
    if names is not None and len(names) == n_dims:
        return [str(name)[:40] for name in names]
    if node.sends_up is Categorical:
        return [f"P({name})" for name in getattr(node, "classes_", range(n_dims))]
    letter = "z" if not isinstance(node, Observation) else "x"
    return [f"{letter}{number}" for number in range(n_dims)]


def _matched(
    clusters: np.ndarray, n_clusters: int, names: Sequence | None, labels: np.ndarray | None
) -> tuple[np.ndarray, list[str], list[int]]:
    """Clusters as classes whose colours are those of the labels they are matched to."""
    titles = [str(name) for name in (range(n_clusters) if names is None else names)]
    colours: list[int] = [*range(n_clusters)]
    if labels is not None:
        classes = labels_in(labels, "explore: labels").classes.tolist()
        pairs = metrics.matching(labels, clusters)
        taken = {cluster: classes.index(label) for cluster, label in pairs.items()}
        free = (number for number in range(n_clusters + len(classes)))
        used = set(taken.values())
        spare = (number for number in free if number not in used)
        colours = [taken[k] if k in taken else next(spare) for k in range(n_clusters)]
    return clusters, titles, colours


def _classes_of(values: np.ndarray) -> tuple[np.ndarray, list[str], list[int]]:
    """Labels or words as classes; unknown ones are -1."""
    codes, classes = labels_in(values, "explore")[:2]
    return codes, [str(name)[:40] for name in classes.tolist()], [*range(len(classes))]


def _brief(record: Json) -> Json:
    """A round's number, accuracy and objective: the last that its updates reported."""
    brief: Json = {"round": record["round"]}
    for key in ("accuracy", "objective"):
        values = [update[key] for update in record["updates"] if update.get(key) is not None]
        if values:
            brief[key] = float(values[-1])
    return brief


def _numbers(report: Json) -> dict[str, str]:
    """The numbers of a report, as text."""
    return {
        key.replace("_", " "): f"{value:.4g}"
        for key, value in report.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def _by_times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "1"


def _summary(message: Message) -> Json:
    """A message in a few lines: its kind, shape, and what its numbers are like."""
    facts: dict[str, str] = {"rows": f"{message.n_rows:,}"}
    if message.observed is not None:
        facts["missing"] = f"{int((~message.observed).sum()):,}"
    if type(message).__name__ == "Deferred":
        return {"kind": "Data", "facts": {**facts, "values": "a reconstruction, made when read"}}
    facts["shape of a row"] = _by_times(message.shape)
    for title, line in _LINES.get(type(message), {}).items():
        facts[title] = line(message)
    return {"kind": type(message).__name__, "facts": facts}


def _range(values: np.ndarray) -> str:
    return f"{values.mean():.3g} (from {values.min():.3g} to {values.max():.3g})"


def _sureness(message: Any) -> str:
    return f"{np.exp(message.log_prob.max(axis=1)).mean():.3f}"


def _sizes(message: Any) -> str:
    counts = np.bincount(message.log_prob.argmax(axis=1), minlength=message.log_prob.shape[1])
    return ", ".join(f"{n:,}" for n in counts[:30]) + ("..." if len(counts) > 30 else "")


def _variances(message: Any) -> str:
    return "not stated" if message.var is None else _range(message.var)


_LINES: dict[type, dict[str, Callable[[Any], str]]] = {
    Data: {"values": lambda m: _range(m.array)},
    Gaussian: {"means": lambda m: _range(m.mean), "variances": _variances},
    Categorical: {"mean of the largest probability": _sureness, "rows of each class": _sizes},
    Mixture: {
        "components": lambda m: str(len(m.means)),
        "mean of the largest probability": _sureness,
        "rows of each component": _sizes,
    },
}
