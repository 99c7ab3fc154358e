"""The VAE with a categorical latent in use: decoding, sampling, prediction, errors."""

import numpy as np
import pytest
from test_module import Teller
from test_multinomial_vae import K, N, likelihood, three_kinds, tiny, trained, uneven
from torch import nn

from serkit import Graph, Observation
from serkit.errors import InputError, NotReadyError
from serkit.messages import Categorical


@pytest.fixture
def x():
    return three_kinds()


def test_decoding_is_the_expectation_over_classes(x):
    module = trained(x, epochs=20)
    prototypes = likelihood(module, np.eye(K)).mean.numpy()
    np.testing.assert_allclose(module.decode(np.eye(K)), prototypes, rtol=1e-5)
    probabilities = np.exp(uneven())
    np.testing.assert_allclose(module.decode(probabilities), probabilities @ prototypes, rtol=1e-5)
    np.testing.assert_allclose(module.reconstruct(x), module.encode(x) @ prototypes, rtol=1e-5)


@pytest.mark.parametrize("z", [[[0.5, 0.6, 0.1]], [[1.5, -0.5, 0.0]], [[1.0, 0.0]]])
def test_only_probabilities_can_be_decoded(x, z):
    with pytest.raises(InputError, match="MultinomialVAE: expected latents"):
        trained(x).decode(z)


def test_samples_are_decoded_classes(x):
    module = trained(x, epochs=50)
    prototypes = module.decode(np.eye(K))
    np.testing.assert_array_equal(module.sample(2, component=1), prototypes[[1, 1]])
    np.testing.assert_array_equal(module.sample(9), module.sample(9))
    drawn = module.sample(3000, random_state=3)
    shares = [(drawn == one).all(axis=1).mean() for one in prototypes]
    np.testing.assert_allclose(shares, 1 / K, atol=5 * np.sqrt(2 / 9 / 3000))
    with pytest.raises(InputError, match="component=3 does not exist; they are 0 to 2"):
        module.sample(component=3)


def test_graphs_sample_classes(x):
    left, right = Observation(x[:, :2], name="left"), Observation(x[:, 2:], name="right")
    module = tiny(epochs=20).connect(left, right).update()
    whole = module.decode(np.eye(K)[[2]])
    drawn = Graph(module).sample(1, component=2)
    np.testing.assert_allclose(drawn["left"], whole[:, :2])
    np.testing.assert_allclose(drawn["right"], whole[:, 2:])


def test_going_down_draws_a_class_a_row(x):
    module = tiny(epochs=20).connect(Observation(x)).update()
    probabilities = np.tile([[0.0, 0.25, 0.75]], (4000, 1))
    (rows,) = module.top_down(probabilities, np.random.default_rng(0))
    shares = [(rows == one).all(axis=1).mean() for one in module.decode(np.eye(K))]
    np.testing.assert_allclose(shares, probabilities[0], atol=5 * np.sqrt(0.1875 / 4000))


def test_prediction_takes_the_childrens_message_into_account(x):
    module = tiny(epochs=5).connect(Observation(x)).update()
    teller = Teller(Categorical(uneven())).connect(module)
    graph = Graph(teller)
    teller.update()
    expected = module.encode(x) * np.exp(uneven())
    found = graph.predict(x).messages["multinomialvae"]
    np.testing.assert_allclose(
        np.exp(found.log_prob), expected / expected.sum(axis=1, keepdims=True), rtol=1e-5
    )


def test_files_of_results(x):
    module = tiny(labels=np.arange(N) % K, epochs=3).connect(Observation(x)).update()
    files = module.artefacts()
    names = {"class_learn.txt", "Pdz_learn.txt", "acc_learn.txt", "x_hat_learn.txt", "loss.txt"}
    assert set(files) == names
    np.testing.assert_allclose(files["Pdz_learn.txt"], module.encode(x), rtol=1e-5)
    assert files["loss.txt"].shape[0] == 3


def test_own_nets_are_used(x):
    encoder, decoder = nn.Linear(5, K), nn.Linear(K, 5)
    module = tiny(encoder=encoder, decoder=decoder, epochs=5).fit(x)
    assert isinstance(module.nets_["encoder"], nn.Linear)
    assert module.reconstruct(x).shape == x.shape
    with pytest.raises(InputError, match=r"encoder must return \(N, 3\)"):
        tiny(encoder=nn.Linear(5, 4), decoder=decoder).fit(x)


def test_bfloat16_learns_much_the_same(x):
    exactly, coarsely = (trained(x, precision=p, epochs=20) for p in ("float32", "bfloat16"))
    losses = [[epoch["loss"] for epoch in module.loss_curve_] for module in (exactly, coarsely)]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(*losses, rtol=0.03)


def test_nothing_can_be_asked_before_training():
    for use in (tiny().encode, tiny().predict, tiny().decode):
        with pytest.raises(NotReadyError, match="MultinomialVAE has learnt nothing yet"):
            use(np.ones((2, K)) / K)
    assert tiny().clusters() is None


@pytest.mark.parametrize(
    ("options", "match"),
    [
        *(
            ({"temperature": bad}, "temperature must be a number > 0, a pair of them, or a func")
            for bad in (0, -1.0, np.inf, np.nan, "hot", (1.0, 0.0), (1.0,), (1.0, 0.5, 0.2), None)
        ),
        ({"n_components": 0}, "n_components must be an integer >= 1, got 0"),
        ({"labels": [0, 1]}, f"labels has 2 entries for {N} rows"),
        ({"alpha": -1}, "alpha must be a number >= 0, got -1"),
        ({"epochs": 0}, "epochs must be an integer >= 1 or several, got 0"),
    ],
)
def test_bad_options_are_refused_before_any_training(x, options, match):
    module = tiny(name="mine").set_params(**options).connect(Observation(x))
    with pytest.raises(InputError, match=f"MultinomialVAE 'mine': {match}"):
        Graph(module).check()
