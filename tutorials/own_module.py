"""A module of one's own in a graph: principal components between the data and a mixture.

    python tutorials/own_module.py

`PrincipalComponents` is a linear cousin of the VAE: it sends latents up and reconstructions down.
It stands in the graph like any other module: it is checked, trained, saved and sampled through.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA

import serkit as srk
from serkit.messages import Data, Gaussian, Mixture
from serkit.modules import GMM
from serkit.options import PositiveInt


@dataclass(eq=False, repr=False)
class PrincipalComponents(srk.Module):
    """Latents are the first principal components of the rows."""

    n_components: PositiveInt  # an argument and its range

    takes_from_children = (Gaussian, Mixture)  # and from parents Data, unless stated
    sends_up, sends_down = Gaussian, Data

    def learn(self, inputs, from_children):
        rows = inputs[0].array.reshape(inputs[0].n_rows, -1)
        pca = PCA(self.n_components, svd_solver="full").fit(rows)
        self.mean_, self.directions_ = pca.mean_, pca.components_  # saved: they end in "_"
        self.scales_ = np.sqrt(pca.explained_variance_)
        return {"explained": float(pca.explained_variance_ratio_.sum())}

    def infer(self, inputs, from_children):
        rows = inputs[0].array.reshape(inputs[0].n_rows, -1)
        latents = (rows - self.mean_) @ self.directions_.T
        (reconstruction,) = self.generate(len(rows), None, latents)
        return srk.Posterior(Gaussian(latents), (Data(reconstruction),))

    def generate(self, n_samples, rng, values=None, component=None):  # only for graph.sample
        if values is None:
            values = rng.normal(0, self.scales_, (n_samples, self.n_components))
        return [values @ self.directions_ + self.mean_]


def main(arguments: list[str] | None = None) -> srk.Graph:
    """Cluster the embedded digits' principal components, save the graph and load it again."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--save", help="file to keep the graph in, and to load it from again")
    chosen = parser.parse_args(arguments)

    images, labels = srk.datasets.load_digits()
    components = PrincipalComponents(10).connect(srk.Observation(images))
    gmm = GMM(10, labels=labels, n_init=10, random_state=0).connect(components)
    graph = srk.Graph(gmm).fit(rounds=1, verbose=False)
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
