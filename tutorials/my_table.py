"""My table: from a CSV file with gaps to rows with names, and a picture of what each name means.

    python tutorials/my_table.py            # writes and reads wines.csv in runs/my_table
    python tutorials/my_table.py --quick    # fewer numbers of clusters tried

178 bottles, 13 measurements of each, some of which are missing, and the grape of every tenth bottle
is known. Which kinds of wine are there, what is typical of each, and which is which? Put your own
file in place of `wines.csv`. It needs pandas: `pip install 'serkit[frames]'`.
"""

# %% Settings
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_wine
from sklearn.impute import KNNImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import serkit as srk
from serkit import metrics, plots
from serkit.modules import GMM

QUICK = "--quick" in sys.argv
OUT = Path("runs/my_table")
OUT.mkdir(parents=True, exist_ok=True)
TABLE = OUT / "wines.csv"  # your own file here

# %% A table to try it with: leave this out for your own
rng = np.random.default_rng(0)
wine = load_wine(as_frame=True)
bottles = wine.data.rename(columns={"od280/od315_of_diluted_wines": "dilution"})
bottles = bottles.mask(rng.random(bottles.shape) < 0.05)  # one value in twenty is missing
grapes = wine.target.map({0: "Nebbiolo", 1: "Grignolino", 2: "Barbera"})
bottles["grape"] = grapes.where(wine.target.index % 10 == 0)  # known of every tenth bottle
bottles.index = pd.Index([f"bottle {number:03d}" for number in range(len(bottles))], name="bottle")
bottles.to_csv(TABLE)

# %% Read it
# One column names the rows, one holds the labels that are known (leave it out if you have none);
# all others are measurements. Leave out columns of text, or make columns of 0 and 1 of them:
# `pd.get_dummies(table)`. Rows that are mostly gaps would make a cluster of their own.
table = pd.read_csv(TABLE, index_col="bottle")
table = table.dropna(thresh=table.shape[1] // 2)
known = table.pop("grape")
print(f"{len(table)} rows of {table.shape[1]} columns, {table.isna().sum().sum()} values missing")
print(f"grape known of {known.notna().sum()} rows")

# %% Fill the gaps and bring all columns to one scale
# serkit refuses a missing value, as it cannot know what to put there. Here each is filled from the
# five most similar rows.
prepare = make_pipeline(StandardScaler(), KNNImputer(n_neighbors=5)).set_output(transform="pandas")
rows = prepare.fit_transform(table)

# %% How many clusters?
# Diagonal covariances, as 178 rows are few for 13 columns. If the answer is "unsure", look at
# the picture, and try other covariances.
model = GMM(1, covariance_type="diag", n_init=2 if QUICK else 5)
selection = srk.select_components(rows, range(2, 5 if QUICK else 7), model=model)
print(selection)
figure = selection.draw()
figure.savefig(OUT / "how_many.png", dpi=120)

# %% Cluster
gmm = GMM(selection.n_components, covariance_type="diag", n_init=20, random_state=0)
graph = srk.Graph(gmm.connect(srk.Observation(rows, name="wines"))).fit(1, verbose=False)

# %% A frame with labels
# Clusters get the names of the labels that most of their known rows have.
result = graph.predict(rows).to_frame()
names = metrics.matching(known, result["gmm_class"])
labelled = table.assign(
    kind=result["gmm_class"].map(names),
    sure=result.filter(like="gmm_p_").max(axis=1).round(3),
)
labelled.to_csv(OUT / "labelled.csv")
print(labelled[["alcohol", "color_intensity", "kind", "sure"]].head(8))
print(labelled["kind"].value_counts().to_string())

# %% What is typical of each kind, in the table's own units
filled = table.fillna(table.median())
figure = plots.profiles(filled, labelled["kind"], names=list(table))
figure.savefig(OUT / "profiles.png", dpi=120)

# %% The rows in two dimensions
figure = plots.latents(rows, clusters=labelled["kind"], density=gmm.density())
figure.savefig(OUT / "rows.png", dpi=120)

# %% New rows, with gaps as well
new = table.tail(3)
print(graph.predict(prepare.transform(new)).to_frame()["gmm_class"].map(names))

# %% How good was it? (Only here, as all grapes are known.)
grapes.index = bottles.index
accuracy = metrics.accuracy(grapes[table.index], result["gmm_class"])
print(f"accuracy {accuracy:.3f}")
