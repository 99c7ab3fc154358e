"""The VAE with a categorical latent: its loss, annealing, messages and use."""

import itertools

import numpy as np
import pytest
import torch
from torch import distributions as dist
from torch import nn

from serkit import Graph, Observation
from serkit.errors import InputError, NotReadyError
from serkit.messages import Categorical, Data
from serkit.module import bound_of
from serkit.modules import MultinomialVAE
from tests.helpers.modules import Teller
from tests.helpers.saved import assert_same

N, K = 24, 3
STILL = {"lr": 1e-30}  # moves nothing, so losses are those of the nets an update ends with
SHARP = {"likelihood": "gaussian", "noise_variance": 0.01}  # a class is worth its nats


@pytest.fixture
def x():
    return three_kinds()


def three_kinds():
    """Rows (24, 5) in [0, 1] of three kinds, in turn."""
    kinds = [[0.1, 0.9, 0.5, 0.3, 0.8], [0.9, 0.2, 0.4, 0.7, 0.1], [0.5, 0.5, 0.9, 0.9, 0.9]]
    return np.tile(kinds, (N // K, 1))


def tiny(**options):
    defaults = {"hidden_sizes": (16,), "epochs": 1, "lr": 1e-2, "random_state": 0}
    return MultinomialVAE(K, **defaults | {"device": "cpu", "precision": "float32"} | options)


def trained(x, message=None, **options):
    module = tiny(**options)
    module.learn([Data(x)], message)
    return module


def uneven():
    """Class probabilities, the same for rows of one kind."""
    rows = [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.6, 0.2]]
    return np.log(np.tile(rows, (N // K, 1)))


def learnt(module):
    return {k: v for k, v in module.get_state().items() if k.endswith("_")}


def likelihood(module, z):
    """p(x | z) by torch.distributions, of latents given to the decoder as they are."""
    with torch.no_grad():
        output = module.nets_["decoder"](torch.as_tensor(z, dtype=torch.float32)).double()
    if module.likelihood == "bernoulli":
        return dist.Independent(dist.Bernoulli(logits=output, validate_args=False), 1)
    return dist.Independent(dist.Normal(output, module.noise_variance**0.5), 1)


def class_log_likelihoods(module, x):
    """Log p(x | k), (N, K)."""
    return likelihood(module, np.eye(K)).log_prob(torch.tensor(x)[:, None]).numpy()


def posterior(module, x):
    """q(k | x) as torch.distributions, from the message up."""
    return dist.Categorical(logits=torch.tensor(module.infer([Data(x)], None).up.log_prob.copy()))


def expected_kl(module, x, log_prob=None):
    """Mean KL(q || P) over rows, P uniform unless given."""
    prior = np.full((N, K), -np.log(K)) if log_prob is None else log_prob
    prior = dist.Categorical(logits=torch.tensor(prior))
    return dist.kl_divergence(posterior(module, x), prior).mean().item()


def exact(module, x):
    """Mean E_q[log p(x | k)] over rows."""
    q = posterior(module, x).probs.numpy()
    return (q * class_log_likelihoods(module, x)).sum(axis=1).mean()


# -- the loss ----------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [None, 0.0, 2.5])
@pytest.mark.parametrize("informed", [False, True], ids=["no message", "message"])
def test_kl_term_equals_torch(x, informed, alpha):
    message = Categorical(uneven()) if informed else None
    module = trained(x, message, alpha=alpha, batch_size=7, **STILL)
    terms = module.loss_curve_[-1]
    expected = expected_kl(module, x, uneven() if informed else None)
    assert terms["kl"] == pytest.approx(expected, rel=1e-4)
    weight = 1.0 if alpha is None else alpha
    assert terms["loss"] == pytest.approx(terms["reconstruction"] + weight * expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_reconstruction_is_that_of_the_relaxed_class(x, kind, temperature):
    """One draw an epoch, 300 epochs, against 2,000 draws by torch.distributions."""
    options = {"likelihood": kind, "temperature": temperature, "epochs": 300}
    module = trained(x, **options, **STILL)
    drawn = np.array([epoch["reconstruction"] for epoch in module.loss_curve_])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        logits = posterior(module, x).logits
        z = dist.RelaxedOneHotCategorical(temperature, logits=logits).sample((2000,))
    draws = likelihood(module, z).log_prob(torch.tensor(x)).mean(dim=1).numpy()
    error = np.hypot(drawn.std() / np.sqrt(300), draws.std() / np.sqrt(2000))
    assert abs(-drawn.mean() - draws.mean()) < 5 * error


def test_at_temperature_0_the_relaxed_class_is_one_class(x):
    """So that its mean is the exact expectation."""
    module = trained(x, temperature=1e-6, epochs=400, **STILL)
    drawn = np.array([epoch["reconstruction"] for epoch in module.loss_curve_])
    assert abs(drawn.mean() + exact(module, x)) < 5 * drawn.std() / np.sqrt(400)
    relaxed = []
    module.nets_.train()
    module.log_likelihood = lambda rows, z: relaxed.append(z) or z
    rows = torch.tensor(x, dtype=torch.float32)
    with torch.random.fork_rng(), torch.no_grad():
        module.expected_log_likelihood(rows, module.q_of(rows), 0)
    np.testing.assert_allclose(np.sort(relaxed[0], axis=1), np.eye(K)[[-1] * N], atol=1e-4)


def test_loss_on_rows_held_out_is_exact(x):
    """At any temperature; all rows are alike, so that it does not matter which they are."""
    rows = np.tile(x[:1], (N, 1))
    options = {"temperature": (9.0, 0.1), "epochs": 3, "validation_fraction": 0.5}
    module = trained(rows, **options, **STILL)
    found = [epoch["held_out_loss"] for epoch in module.loss_curve_]
    expected = expected_kl(module, rows) - exact(module, rows)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# -- temperature -------------------------------------------------------------------------------


def temperatures(monkeypatch, x, updates=1, **options):
    """Those given to torch, of every step."""
    given = []
    relaxed = nn.functional.gumbel_softmax

    def spy(logits, tau):
        given.append(tau)
        return relaxed(logits, tau)

    monkeypatch.setattr(nn.functional, "gumbel_softmax", spy)
    module = tiny(**options).connect(Observation(x))
    for _ in range(updates):
        module.update()
    return given


@pytest.mark.parametrize("warm_start", [True, False])
def test_temperature_falls_by_the_same_factor_an_epoch(monkeypatch, x, warm_start):
    """Over the first update, or over each if all start afresh."""
    options = {"temperature": (2.0, 0.5), "epochs": 5, "warm_start": warm_start}
    falling = 2.0 * 0.25 ** (np.arange(5) / 4)
    later = [0.5] * 5 if warm_start else falling
    found = temperatures(monkeypatch, x, 2, **options)
    np.testing.assert_allclose(found, [*falling, *later])


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (0.7, [0.7] * 6),
        (lambda update, epoch: 1 / (1 + 3 * update + epoch), 1 / np.arange(1, 7)),
    ],
    ids=["constant", "function"],
)
def test_temperature_may_be_a_number_or_a_function(monkeypatch, x, temperature, expected):
    found = temperatures(monkeypatch, x, 2, temperature=temperature, epochs=3)
    np.testing.assert_allclose(found, expected)


def test_temperature_may_fall_at_a_rate_in_every_update(monkeypatch, x):
    options = {"temperature": (2.0, 0.5), "temperature_decay": 0.4, "epochs": 5}
    falling = np.maximum(2.0 * np.exp(-0.4 * np.arange(5)), 0.5)
    assert falling[3] > falling[4] == 0.5
    np.testing.assert_allclose(temperatures(monkeypatch, x, 2, **options), [*falling, *falling])


@pytest.mark.parametrize("temperature", [0.7, lambda update, epoch: 1.0])
def test_a_rate_needs_a_first_and_a_last_temperature(x, temperature):
    with pytest.raises(InputError, match=r"temperature_decay=0\.1 needs the first and the last"):
        tiny(temperature=temperature, temperature_decay=0.1).fit(x)


@pytest.mark.parametrize("returned", [0.0, -1.0, "hot", np.nan, np.inf])
def test_a_function_that_gives_no_temperature_is_an_error(x, returned):
    with pytest.raises(InputError, match=f"temperature must return a number > 0.*{returned}"):
        tiny(temperature=lambda update, epoch: returned).fit(x)


# -- several classes a row ---------------------------------------------------------------------


def by_draws(module, x, n):
    """E_q[log p(x | shares of n classes)], (N,), summed over all n classes in order."""
    probs = posterior(module, x).probs.double().numpy()
    total = np.zeros(len(x))
    for classes in itertools.product(range(K), repeat=n):
        shares = np.tile(np.eye(K)[list(classes)].mean(axis=0), (len(x), 1))
        log_prob = likelihood(module, shares).log_prob(torch.tensor(x)).numpy()
        total += probs[:, list(classes)].prod(axis=1) * log_prob
    return total


def test_terms_of_several_draws_are_their_expectations(x):
    """In training at a low temperature, on rows held out and in the objective alike."""
    rows, n = np.tile(x, (100, 1)), 2
    options = {"n_draws": n, "batch_size": len(rows), "validation_fraction": 0.5, **STILL}
    module = trained(rows, temperature=1e-6, **options)
    (terms,) = module.loss_curve_
    expected = by_draws(module, x, n)  # of the three kinds of rows, which are equally frequent
    kl = n * expected_kl(module, x)
    assert terms["kl"] == pytest.approx(kl, rel=1e-2)  # of a half in which kinds differ a little
    spread = np.std(
        [
            [
                likelihood(module, z).log_prob(torch.tensor(x[:3])).numpy()
                for z in np.repeat(np.eye(K)[:, None], 3, axis=1)
            ]
        ]
    )
    error = spread / np.sqrt(len(rows) / 2)  # standard error of a mean over half of the rows
    assert abs(terms["reconstruction"] + expected.mean()) < 5 * error
    assert abs(terms["held_out_loss"] - kl + expected.mean()) < 5 * error
    bound = bound_of(module.infer([Data(rows)], None))
    assert abs(bound + kl - expected.mean()) < 5 * error


def test_several_draws_go_through_the_decoder_as_shares(x):
    module = trained(x, n_draws=4, epochs=20)
    probabilities = np.exp(uneven())
    expected = likelihood(module, probabilities).mean.numpy()
    np.testing.assert_allclose(module.decode(probabilities), expected, rtol=1e-5)
    np.testing.assert_allclose(module.sample(1, component=2), module.decode(np.eye(K)[[2]]))
    shares = module._draw(
        4000, np.random.default_rng(0), np.tile([0.0, 0.25, 0.75], (4000, 1)), None
    )
    assert set(np.unique(shares)) == {0, 0.25, 0.5, 0.75, 1}
    error = np.sqrt(0.1875 / 16000)
    np.testing.assert_allclose(shares.mean(axis=0), [0, 0.25, 0.75], atol=5 * error)


def test_more_draws_tell_rows_apart_that_mix_kinds():
    """Of 3 kinds, rows half one and half another: shares of two classes hold what one cannot."""
    kinds = three_kinds()[:K]
    pairs = [(a, b) for a in range(K) for b in range(a, K)]
    rows = np.array([(kinds[a] + kinds[b]) / 2 for a, b in pairs] * 8)
    options = {"epochs": 60, "lr": 3e-2, **SHARP}
    errors = [
        ((trained(rows, n_draws=n, **options).reconstruct(rows) - rows) ** 2).mean() for n in (1, 8)
    ]
    assert errors[1] < errors[0] / 2


# -- what it learns ----------------------------------------------------------------------------


def test_kinds_of_rows_become_classes(x):
    module = tiny(epochs=150, labels=np.arange(N) % K, **SHARP).connect(Observation(x)).update()
    assert module.history_[-1]["accuracy"] == 1
    assert module.encode(x).max(axis=1).min() > 0.95
    assert module.scores() == {name: module.history_[-1][name] for name in module.scores()}
    np.testing.assert_array_equal(module.posterior.clusters, module.predict(x))
    np.testing.assert_allclose(module.messages_down[0].array, x, atol=0.1)


def test_digits_do_not_collapse_into_few_classes(digits):
    """By the defaults but for the learning rate: a tenth of the images is a batch's few steps."""
    module = MultinomialVAE(10, labels=digits.labels, random_state=0, lr=5e-3, batch_size=100)
    module.connect(Observation(digits.x)).update()
    shares = np.bincount(module.posterior.clusters, minlength=10) / len(digits.x)
    assert shares.min() > 0.02
    assert module.history_[-1]["accuracy"] > 0.5


def test_labels_only_score(x):
    labels = np.random.default_rng(0).permutation(np.arange(N) % K)
    assert_same(learnt(trained(x, labels=labels)), learnt(trained(x)))


def test_an_even_message_is_as_none(x):
    for is_prior in (False, True):
        even = Categorical(np.full((N, K), -np.log(K)), is_prior=is_prior)
        assert_same(learnt(trained(x, even, epochs=5)), learnt(trained(x, epochs=5)))


def test_priors_and_evidence_are_the_same_target(x):
    one, other = (Categorical(uneven(), is_prior=is_prior) for is_prior in (False, True))
    assert_same(learnt(trained(x, one)), learnt(trained(x, other)))


@pytest.mark.parametrize("certain", [False, True])
def test_a_message_names_the_classes(x, certain):
    """Even one with impossible classes, as a Markov model without some transitions sends."""
    wanted = (np.arange(N) + 1) % K
    with np.errstate(divide="ignore"):
        log_prob = np.log(np.eye(K) if certain else np.eye(K) * 0.94 + 0.02)[wanted]
    module = trained(x, Categorical(log_prob), epochs=150)
    np.testing.assert_array_equal(module.predict(x), wanted)
    assert all(np.isfinite(list(epoch.values())).all() for epoch in module.loss_curve_)
    assert np.isfinite(bound_of(module.infer([Data(x)], Categorical(log_prob))))


def test_message_up_is_of_the_rows_alone(x):
    module = trained(x, Categorical(uneven()), epochs=20)
    message = module.infer([Data(x)], None).up
    assert message.log_prior is None
    np.testing.assert_allclose(np.exp(message.log_prob), module.encode(x), rtol=1e-5)


@pytest.mark.parametrize("shape", [(N, K + 1), (N - 1, K)])
def test_messages_of_other_sizes_are_refused(x, shape):
    said = f"sent probabilities of {shape[1]} classes for {shape[0]} rows; expected n_components=3"
    with pytest.raises(InputError, match=f"MultinomialVAE: its children {said} for {N} rows"):
        trained(x, Categorical.uniform(*shape))


# -- the objective -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("informed", [False, True], ids=["no message", "message"])
def test_objective_is_the_elbo(x, kind, informed):
    log_prob = uneven() if informed else None
    message = Categorical(log_prob) if informed else None
    module = trained(x, message, likelihood=kind, epochs=20)
    expected = exact(module, x) - expected_kl(module, x, log_prob)
    assert bound_of(module.infer([Data(x)], message)) == pytest.approx(expected, rel=1e-5)


def test_objective_lacks_the_encoders_error_of_the_log_likelihood(x):
    """log sum_k P(k) p(x | k) - ELBO = KL(q(k | x) || P(k | x))."""
    module = trained(x, epochs=20, **SHARP)
    joint = class_log_likelihoods(module, x) - np.log(K)
    log_likelihood = np.logaddexp.reduce(joint, axis=1).mean()
    right = dist.Categorical(logits=torch.tensor(joint))
    error = dist.kl_divergence(posterior(module, x), right).mean().item()
    assert error > 0.1
    bound = bound_of(module.infer([Data(x)], None))
    assert bound == pytest.approx(log_likelihood - error, rel=1e-4)


# -- in use ----------------------------------------------------------------------------------------


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
    for component in (3, True):
        with pytest.raises(InputError, match=f"component={component} does not exist; they are 0"):
            module.sample(component=component)


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
    (rows,) = module.generate(4000, np.random.default_rng(0), probabilities)
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
    assert tiny().posterior is None


@pytest.mark.parametrize(
    ("options", "match"),
    [
        *(
            ({"temperature": bad}, "temperature must be a number > 0, a pair of them, or a func")
            for bad in (0, -1.0, np.inf, np.nan, "hot", (1.0, 0.0), (1.0,), (1.0, 0.5, 0.2), None)
        ),
        ({"n_components": 0}, "n_components must be an integer >= 1, got 0"),
        ({"labels": [0, 1]}, f"labels has 2 entries for {N} rows"),
        ({"alpha": -1}, "alpha must be a number >= 0, or a function of update and epoch, got -1"),
        ({"epochs": 0}, "epochs must be an integer >= 1, or several, got 0"),
    ],
)
def test_bad_options_are_refused_before_any_training(x, options, match):
    module = tiny(name="mine").set_params(**options).connect(Observation(x))
    with pytest.raises(InputError, match=f"MultinomialVAE 'mine': {match}"):
        Graph(module).check()
