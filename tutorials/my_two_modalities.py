"""My two modalities: images with captions. See one and guess the words, hear words and imagine one.

    python tutorials/my_two_modalities.py            # pictures in runs/my_two_modalities
    python tutorials/my_two_modalities.py --quick    # fewer rows and epochs

Every row has an image and a few words of text; of some rows one of the two is missing. A VAE and a
mixture learn the images, topics (MLDA) learn the counts of words, and they tell each other what
they think of each row. Nobody says what is in the images. Put your own pairs in place of these.
"""

# %% Settings
import sys
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

import serkit as srk
from serkit import metrics, plots
from serkit.modules import GMM, MLDA, VAE

QUICK = "--quick" in sys.argv
OUT = Path("runs/my_two_modalities")
OUT.mkdir(parents=True, exist_ok=True)
N_KINDS = 10

# %% Pairs to try it with: leave this out for your own
# Handwritten digits, and what somebody might say who sees them: a few words of each digit's own,
# some that fit several digits, and some that say nothing.
SAYINGS = {
    0: "ring hole empty round nothing egg",
    1: "stick straight upright single line alone",
    2: "swan neck curve flat foot pair",
    3: "bumps two curve open left triple",
    4: "chair corner straight cross square legs",
    5: "hook belly flat hat curve hand",
    6: "belly round tail up loop snail",
    7: "roof corner straight slanted cliff week",
    8: "snowman two round loops waist hourglass",
    9: "balloon round string head tail loop",
}
FILLERS = ["the", "a", "drawn", "ink", "small", "dark", "someone", "wrote", "it", "quickly"]
rng = np.random.default_rng(0)
images, digits = srk.datasets.load_digits()
images, digits = (images[:200], digits[:200]) if QUICK else (images, digits)
captions = [
    " ".join([*rng.choice(SAYINGS[digit].split(), 5), *rng.choice(FILLERS, 5)])
    for digit in digits.tolist()
]
print(captions[:3])

# %% Words as counts
vectorizer = CountVectorizer()
words = vectorizer.fit_transform(captions).toarray()  # (N, V)
vocabulary = vectorizer.get_feature_names_out()
print(f"{len(images)} images, {len(vocabulary)} different words")

# %% What is missing
# What stands in a missing row does not matter: it is inferred from the row's other modality.
seen = rng.random(len(images)) < 0.9
heard = (rng.random(len(images)) < 0.8) | ~seen  # no row lacks both

# %% The graph
preset = srk.presets.vae_gmm_mlda()
settings = preset["vae"] | ({"epochs": (10, 3)} if QUICK else {})
vae = VAE(**settings, random_state=0).connect(srk.Observation(images, observed=seen, name="images"))
gmm = GMM(N_KINDS, **preset["gmm"], random_state=0).connect(vae)
mlda = MLDA(N_KINDS, **preset["mlda"], random_state=0)
mlda.connect(gmm, srk.Observation(words, observed=heard, name="words"))
graph = srk.Graph(mlda)
print(graph)


# %% Learn: the images first, so that the topics start from good clusters; then all, in turn
def schedule(round_: int) -> list[str]:
    """The updates of a round."""
    return ["vae", "gmm"] if round_ < 3 else ["vae", *["gmm", "mlda"] * 3]


graph.fit(5, schedule=schedule, verbose=False)

# %% See an image, guess its words
# Of the words that are expected, those which are said of it more often than of other images.
expected = graph.reconstruct(images[:10], None)["words"]  # (10, V); None: nothing is heard
special = np.argsort(-expected / words[heard].mean(axis=0), axis=1)[:, :4]
guesses = [" ".join(vocabulary[numbers]) for numbers in special]
figure = plots.image_grid(images[:10, None], row_titles=guesses)
figure.savefig(OUT / "seen.png", dpi=120)

# %% Hear words, imagine an image, and find some that fit
sentences = ["a round hole", "two round loops", "chair with straight legs", "snail with a tail"]
counts = vectorizer.transform(sentences).toarray()
imagined = graph.reconstruct(None, counts)["images"]  # (4, 8, 8); None: nothing is seen
kinds, sure = graph.predict(None, counts).classes, graph.predict(images, None).probabilities
found = [images[np.argsort(-sure[:, kind])[:8]] for kind in kinds]
figure = plots.image_grid(
    np.concatenate([imagined[:, None], found], axis=1),
    row_titles=sentences,
    title="imagined, and eight that were found",
)
figure.savefig(OUT / "heard.png", dpi=120)

# %% How good was it? (Only here, as the digits are known.)
for what, rows in {"seen": (images, None), "heard": (None, words), "both": (images, words)}.items():
    print(f"{what:>5} {metrics.accuracy(digits, graph.predict(*rows).classes):.3f}")
