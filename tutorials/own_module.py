"""A module of one's own in a graph: principal components between the data and a mixture.

    python tutorials/own_module.py

`PrincipalComponents` is a linear cousin of the VAE in 30 lines: it sends latents up, and gives
back reconstructions. It stands in the graph like any other module: it is checked, trained, saved
and sampled through.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.decomposition import PCA

import serkit as srk
from serkit.messages import Data, Gaussian, Mixture
from serkit.modules import GMM


class PrincipalComponents(srk.Module):
    """Latents are the first principal components of one parent's rows."""

    takes_from_parents = (Data,)  # from parents
    takes_from_children = (Gaussian, Mixture)  # from children
    sends_up = Gaussian  # sent up
    sends_down = Data  # sent down

    def __init__(self, n_components, *, name=None, random_state=None):
        super().__init__(name=name, random_state=random_state)
        self.n_components = n_components

    @property
    def size(self):
        return self.n_components

    def learn(self, inputs, prior):
        rows = inputs[0].array.reshape(inputs[0].n_rows, -1)
        pca = PCA(self.n_components, svd_solver="full").fit(rows)
        self.mean_, self.directions_ = pca.mean_, pca.components_  # saved: they end in "_"
        return {"explained": float(pca.explained_variance_ratio_.sum())}

    def forward(self, inputs):
        rows = inputs[0].array.reshape(inputs[0].n_rows, -1)
        return Gaussian((rows - self.mean_) @ self.directions_.T)

    def backward(self, inputs, prior):
        rows = self.in_data_space(self.forward(inputs).mean)
        return [Data(rows.reshape(inputs[0].array.shape))]

    def in_data_space(self, latents):
        return latents @ self.directions_ + self.mean_

    def top_down(self, values, rng):  # only needed for graph.sample
        return [self.in_data_space(values)]


def main(arguments: list[str] | None = None) -> srk.Graph:
    """Cluster the embedded digits' principal components, save the graph and load it again."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--save", help="file to keep the graph in, and to load it from again")
    chosen = parser.parse_args(arguments)

    images, labels = srk.datasets.load_digits()
    obs = srk.Observation(images)
    components = PrincipalComponents(10)
    gmm = GMM(10, labels=labels, n_init=10, random_state=0)
    components.connect(obs)
    gmm.connect(components)
    graph = srk.Graph(gmm)
    graph.fit(rounds=1, verbose=False)
    print(graph)
    print(f"explained variance {components.history_[-1]['explained']:.3f}")
    print(f"accuracy           {gmm.history_[-1]['accuracy']:.3f}")
    print(f"classes of 5 rows  {graph.predict(images[:5]).classes}")
    print(f"mean of 9 samples  {graph.sample(9, component=0).mean():.3f}")
    if chosen.save:
        graph.save(chosen.save)
        again = srk.Graph.load(chosen.save)
        same = np.array_equal(again.predict(images).classes, graph.predict(images).classes)
        print(f"loaded again, same classes: {same}")
    return graph


if __name__ == "__main__":
    main()
