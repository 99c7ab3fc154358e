"""My images in a folder: files go in, and come out sorted into clusters, with a sheet of each.

    python tutorials/my_images.py            # writes and reads PNG files in runs/my_images
    python tutorials/my_images.py --quick    # fewer images and epochs

A VAE learns what the images have in common, a mixture learns which kinds there are, and both learn
together. Nobody says what is in the images. Put your own folder in place of `runs/my_images/files`.
"""

# %% Settings
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import serkit as srk
from serkit import metrics, plots
from serkit.modules import GMM, VAE

QUICK = "--quick" in sys.argv
OUT = Path("runs/my_images")
FOLDER = OUT / "files"  # your own folder here
SIZE = (8, 8)  # width and height to which all are brought; 28 to 64 for drawings and photographs
N_CLUSTERS = 10

# %% Images to try it with: leave this out for your own
FOLDER.mkdir(parents=True, exist_ok=True)
digits = srk.datasets.load_digits()
for number, image in enumerate(digits.images[:300] if QUICK else digits.images):
    Image.fromarray((255 * image).astype(np.uint8)).save(FOLDER / f"scan{number:04d}.png")

# %% Read them
# All in one size and in grey, from 0 to 1. (For colour say `convert("RGB")` and transpose to
# (N, 3, H, W).) Crop what is only background: the VAE spends its latents on what varies.
paths = sorted(p for p in FOLDER.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
images = np.stack([np.asarray(Image.open(path).convert("L").resize(SIZE)) for path in paths]) / 255
print(f"{len(images)} images of {images.shape[2]} x {images.shape[1]} pixels")

# %% The graph
# The preset is for small grey images, which may turn, lean, and shift by half a pixel; from about
# 28 x 28 on take `vae_gmm("best")`, with more of each. The number of clusters is a choice: with too
# many, some kinds come in two clusters, which is easily seen.
preset = srk.presets.vae_gmm()
settings = preset["vae"] | ({"epochs": 10} if QUICK else {})
vae = VAE(**settings, random_state=0)
gmm = GMM(N_CLUSTERS, **preset["gmm"], random_state=0)
graph = srk.Graph(gmm.connect(vae.connect(srk.Observation(images, name="images"))))
print(graph)

# %% Learn
# Another `random_state` finds somewhat other clusters.
graph.fit(2 if QUICK else preset["rounds"], verbose=False)
last = graph.history[-1]["updates"][-1]
print(f"{last['changed']:.1%} of the images changed their cluster in the last round")

# %% A table of files and clusters
prediction = graph.predict(images)
clusters, sure = prediction.classes, prediction.probabilities.max(axis=1)
names = [path.name for path in paths]
rows = np.vstack([("file", "cluster", "sure"), np.column_stack([names, clusters, sure.round(3)])])
np.savetxt(OUT / "clusters.csv", rows, fmt="%s", delimiter=",")
print(rows[:5])

# %% All clusters at a glance
# Images nearest to the middle of their cluster come first.
distances = np.linalg.norm(prediction.latents - gmm.means_[clusters], axis=1)
members = [np.flatnonzero(clusters == k) for k in range(N_CLUSTERS)]
members = [numbers[np.argsort(distances[numbers])] for numbers in members]
shown = max(1, min(16, *map(len, members)))
figure = plots.image_grid(
    [images[numbers[:shown]] for numbers in members],
    row_titles=[f"{k}: {len(numbers)} images" for k, numbers in enumerate(members)],
    title="the most typical images of each cluster",
)
figure.savefig(OUT / "clusters.png", dpi=120)

# %% A contact sheet of each cluster
# All its images, the most typical first: at the end are those that may be wrong.
for k, numbers in enumerate(members):
    columns = 20
    blank = np.ones((-len(numbers) % columns, *images.shape[1:]))
    sheet = np.concatenate([images[numbers], blank]).reshape(-1, columns, *images.shape[1:])
    title = f"cluster {k}, {len(numbers)} images, from the most to the least typical"
    plots.image_grid(sheet, title=title).savefig(OUT / f"sheet{k}.png", dpi=120)

# %% What the graph imagines: draws from each cluster, which are in no file
drawn = np.stack([graph.sample(16, component=k) for k in range(N_CLUSTERS)])
figure = plots.samples(drawn)
figure.savefig(OUT / "drawn.png", dpi=120)

# %% Keep it, and sort a new image later
graph.save(OUT / "graph.safetensors")
again = srk.Graph.load(OUT / "graph.safetensors")
print(f"{names[0]} goes into cluster {again.predict(images[:1]).classes[0]}")

# %% How good was it? (Only here, as the digits are known.)
print(f"accuracy {metrics.accuracy(digits.labels[: len(images)], clusters):.3f}")
