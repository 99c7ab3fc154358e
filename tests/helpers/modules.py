"""User-written modules, and small graphs of serkit's own."""

import numpy as np
from scipy.special import log_softmax

from serkit import Module, Observation
from serkit.errors import InputError
from serkit.messages import Categorical, Data, Gaussian, Mixture
from serkit.module import Posterior
from serkit.modules import GMM, VAE

NET = {"epochs": 1, "hidden_sizes": (4,), "random_state": 0}


class KMeans(Module):
    """A user's module: one step of Lloyd's algorithm an update."""

    takes_from_parents = (Data, Gaussian)
    takes_from_children = (Categorical,)
    sends_up = Categorical
    sends_down = Mixture

    def __init__(self, n_components, *, name=None, random_state=None):
        super().__init__(name=name, random_state=random_state)
        self.n_components = n_components

    @property
    def n_outputs(self):
        return self.n_components

    def check(self, inputs, n_rows):
        if self.n_components > n_rows:
            raise InputError(f"{self.label}: {self.n_components} components for {n_rows} rows")

    def learn(self, inputs, from_children):
        x = _side_by_side(inputs)
        if not hasattr(self, "means_"):
            self.means_ = x[self.rng().choice(len(x), self.n_components, replace=False)]
        nearest = self.infer(inputs, from_children).clusters
        clusters = [x[nearest == k] for k in range(self.n_components)]
        self.means_ = np.stack(
            [
                rows.mean(axis=0) if len(rows) else mean
                for rows, mean in zip(clusters, self.means_, strict=True)
            ]
        )
        return {"loss": float(((x - self.means_[nearest]) ** 2).sum(axis=1).mean())}

    def infer(self, inputs, from_children):
        distances = ((_side_by_side(inputs)[:, None] - self.means_) ** 2).sum(axis=2)  # (N, K)
        evidence = 0 if from_children is None else from_children.log_prob
        classes = Categorical(log_softmax(-distances / 2 + evidence, axis=1))
        k, d = self.means_.shape
        covariances = np.broadcast_to(np.eye(d), (k, d, d))
        mixture = Mixture(classes.log_prob, self.means_, covariances)
        return Posterior(
            up=Categorical(log_softmax(-distances / 2, axis=1)),
            down=tuple(mixture.split([_side_by_side([m]).shape[1] for m in inputs])),
            classes=classes,
        )


def _side_by_side(inputs):
    """The rows of all messages, (N, D)."""
    rows = [m.array if isinstance(m, Data) else m.mean for m in inputs]
    return np.concatenate([r.reshape(len(r), -1) for r in rows], axis=1).astype(float)


class Teller(Module):
    """A leaf that learns nothing and tells its parents the message it was made with."""

    takes_from_parents = (Data, Gaussian, Categorical)

    def __init__(self, message, *, name=None):
        super().__init__(name=name)
        self.message = message

    @property
    def sends_down(self):
        return type(self.message)

    @property
    def n_outputs(self):
        return self.message.shape[0] if isinstance(self.message, Categorical) else None

    def learn(self, inputs, from_children):
        return {}

    def infer(self, inputs, from_children):
        return Posterior(down=(self.message,) * len(inputs))


class Sender(Module):
    """Learns nothing, and sends up the message it was made with."""

    takes_from_children = (Categorical, Gaussian, Mixture)

    def __init__(self, message, *, name=None):
        super().__init__(name=name)
        self.message = message

    @property
    def sends_up(self):
        return type(self.message)

    @property
    def n_outputs(self):
        return self.message.shape[0]

    def learn(self, inputs, from_children):
        return {}

    def infer(self, inputs, from_children):
        return Posterior(up=self.message, down=(None,))


class Classes(Module):
    """Class probabilities by a random linear map, fixed by the seed; it learns nothing."""

    takes_from_children = (Categorical,)
    sends_up = Categorical

    def __init__(self, n_components, *, name=None, random_state=None):
        super().__init__(name=name, random_state=random_state)
        self.n_components = n_components

    @property
    def n_outputs(self):
        return self.n_components

    def learn(self, inputs, from_children):
        return {}

    def infer(self, inputs, from_children):
        rows = inputs[0].array.reshape(inputs[0].n_rows, -1)
        shape = rows.shape[1], self.n_components
        directions = np.random.default_rng(self.random_state).normal(size=shape)
        log_prob = log_softmax(3 * (rows - rows.mean()) @ directions, axis=1)
        return Posterior(up=Categorical(log_prob), down=(None,))

    def generate(self, n_samples, rng, values=None, component=None):
        return [rng.random((n_samples, self.parents[0].n_outputs))]


def uniform_rows(n=20, d=4, seed=0):
    return np.random.default_rng(seed).uniform(size=(n, d))


def chain(n=20, seed=0):
    """Observation, VAE and GMM, connected and updated once each."""
    vae = VAE(2, **NET).connect(Observation(uniform_rows(n, seed=seed)))
    gmm = GMM(2, random_state=0).connect(vae)
    vae.update()
    gmm.update()
    return vae, gmm
