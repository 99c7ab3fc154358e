"""The tutorials' settings by name: arguments of their modules, and how their graphs are trained.

A preset is a dict that the caller owns: arguments by module, and beside them ``rounds`` and what
else the tutorial does with its graph::

    preset = srk.presets.vae_gmm("best")
    vae = VAE(**preset["vae"], random_state=0)
    gmm = GMM(10, **preset["gmm"], random_state=0)

Each function has the name of the script in ``tutorials/`` whose settings it gives, and the scripts
take theirs from here. The guide's page of measurements says what comes out.
"""

from __future__ import annotations

from typing import Any

from .modules import Compose, RandomAffine, RandomIntensity
from .options import Choice, check_argument

__all__ = [
    "animals",
    "conv_latent_7d",
    "gmm_per_class",
    "vae_gmm",
    "vae_gmm_mlda",
    "vae_gmm_mm",
    "vae_gmm_nn",
]

Preset = dict[str, Any]


def vae_gmm(name: str = "default") -> Preset:
    """Settings of a VAE and a mixture that learn together.

    Parameters
    ----------
    name : {"default", "serket", "best", "mnist", "fashion"}
        "default" is for small grey images such as the embedded digits, "serket" has the original
        tutorial's nets and training (with EM for its Gibbs sampler), and "best" is the best found
        for the original's 3,000 digits. "mnist" and "fashion" are for all 70,000 images.

    Returns
    -------
    dict
        Arguments of ``vae`` and ``gmm``, ``rounds``, and ``restarts`` and ``trial_rounds``: from
        how many seeds the first so many of the rounds are run, before one run goes on.

    Raises
    ------
    InputError
        If there is no preset of that name.

    Examples
    --------
    >>> import serkit as srk
    >>> preset = srk.presets.vae_gmm("best")
    >>> preset["rounds"], preset["vae"]["latent_dim"], preset["gmm"]["n_init"]
    (14, 18, 20)
    >>> srk.presets.vae_gmm("worst")
    Traceback (most recent call last):
    serkit.errors.InputError: presets.vae_gmm: unknown name='worst'; expected one of 'default', ...
    """
    presets: dict[str, Preset] = {
        "default": {
            "rounds": 10,
            "vae": {
                **_small_vae(),
                **_conv_net(),
                "hidden_sizes": (128,),
                "noise_variance": 0.03,
                "epochs": (80, 20),
                "augment": RandomAffine(degrees=10, shear=0.2, scale=0.1, shift=0.5),
                "augment_target": ("clean", "clean", "clean", "augmented"),
            },
            "gmm": {"n_init": 20, "tol": 1e-4, "weight_concentration_prior": 1e4},
        },
        "serket": {"rounds": 5, **_serket()},
        "best": {
            "rounds": 14,
            "vae": {
                **_conv_net(),
                "latent_dim": 18,
                "hidden_sizes": (256,),
                "epochs": (60, 15),
                "batch_size": 100,
                "lr": 2e-3,
                "augment": RandomAffine(),
                "augment_target": ("clean", "augmented"),
            },
            "gmm": {
                "n_init": 20,
                "tol": 1e-4,
                "use_variance": True,
                "covariance_prior": 20.0,
                "weight_concentration_prior": 1e4,  # digits are about equally frequent
            },
        },
        "mnist": {
            "rounds": 45,
            "vae": {**_large_vae(), "epochs": (40, 5)},
            "gmm": {
                "n_init": (*[5] * 12, 0),  # late rounds must not jump to another optimum
                "max_iter": 100,
                "tol": 1e-4,
                "use_variance": True,
                "covariance_prior": 20.0,
                "weight_concentration_prior": 1e5,  # classes are equally frequent
            },
        },
        "fashion": {
            "restarts": 3,
            "trial_rounds": 2,
            "rounds": 8,
            "vae": {
                **_large_vae(),
                "epochs": (25, 5),
                "augment": Compose(
                    [
                        RandomAffine(degrees=0, shear=0, scale=(0.6, 1.1), aspect=0.3, shift=3),
                        RandomIntensity(),
                    ]
                ),
                "augment_target": "clean",
            },
            "gmm": {
                "n_init": (10, 5, 5, 0),  # late rounds must not jump to another optimum
                "tol": 1e-4,
                "use_variance": True,
                "weight_concentration_prior": 1e5,  # classes are equally frequent
            },
        },
    }
    return {"restarts": 1, "trial_rounds": 1} | _preset("vae_gmm", presets, name)


def vae_gmm_mm(name: str = "digits") -> Preset:
    """Settings of a VAE, a mixture and a Markov model, for rows that come in an order.

    Parameters
    ----------
    name : {"digits", "tutorial"}
        For the embedded digits, or for the original tutorial's 3,000.

    Returns
    -------
    dict
        Arguments of ``vae`` and ``gmm``, ``rounds``, and ``steps`` of Baum-Welch a round.

    Raises
    ------
    InputError
        If there is no preset of that name.

    Examples
    --------
    >>> import serkit as srk
    >>> srk.presets.vae_gmm_mm("tutorial")["steps"]
    5
    """
    training = {"rounds": 5, "steps": 5}  # with one step the chain lags behind the latents
    presets: dict[str, Preset] = {
        "digits": {
            **training,
            "vae": {"latent_dim": 10, "epochs": (100, 40), "batch_size": 128, "lr": 2e-3},
            "gmm": {
                "n_init": 20,
                "tol": 1e-4,
                "use_variance": True,  # responsibilities soft enough for neighbours to be heard
                "weight_concentration_prior": 1e4,
            },
        },
        "tutorial": {**training, **_serket()},
    }
    return _preset("vae_gmm_mm", presets, name)


def vae_gmm_nn(name: str = "digits") -> Preset:
    """Settings of a VAE and a mixture that are told the labels of 1 % of the rows.

    Parameters
    ----------
    name : {"digits", "tutorial"}
        For the embedded digits, or for the original tutorial's 3,000.

    Returns
    -------
    dict
        Arguments of ``vae`` and ``gmm``, and ``rounds``.

    Raises
    ------
    InputError
        If there is no preset of that name.

    Examples
    --------
    >>> import serkit as srk
    >>> srk.presets.vae_gmm_nn()["vae"]["noise_variance"]
    0.05
    """
    presets: dict[str, Preset] = {
        "digits": {
            "rounds": 5,
            "vae": _small_vae(),
            "gmm": {"n_init": 20, "tol": 1e-4, "weight_concentration_prior": 1e4},
        },
        "tutorial": {"rounds": 5, **_serket()},
    }
    return _preset("vae_gmm_nn", presets, name)


def vae_gmm_mlda(name: str = "digits") -> Preset:
    """Settings of images and speech together; of ``vae_gmm_mlda_mm`` and ``cross_modal`` too.

    Parameters
    ----------
    name : {"digits", "tutorial"}
        For the embedded digits with made-up speech, or for the original tutorial's 3,000.

    Returns
    -------
    dict
        Arguments of ``vae``, ``gmm`` and ``mlda``.

    Raises
    ------
    InputError
        If there is no preset of that name.

    Examples
    --------
    >>> import serkit as srk
    >>> srk.presets.vae_gmm_mlda("tutorial")["mlda"]
    {'n_init': 15}
    """
    presets: dict[str, Preset] = {
        "digits": {
            "vae": _small_vae(),
            "gmm": {"n_init": 20, "weight_concentration_prior": 1e4},
            "mlda": {"n_init": 10},
        },
        "tutorial": {
            "vae": {**_large_vae(), "epochs": (150, 30)},
            "gmm": {
                "n_init": 10,
                "use_variance": True,
                "covariance_prior": 20.0,
                "weight_concentration_prior": 1e4,  # digits are about equally frequent
            },
            "mlda": {"n_init": 15},
        },
    }
    return _preset("vae_gmm_mlda", presets, name)


def gmm_per_class(name: str = "digits") -> Preset:
    """Settings of a frozen autoencoder with a mixture a class on its latents.

    Parameters
    ----------
    name : {"digits", "mnist", "fashion"}
        The data they are for.

    Returns
    -------
    dict
        Arguments of ``encoder`` (an `AE`), ``classifier`` (a `GMMClassifier`) and ``novelty``. For
        "mnist" and "fashion" also ``copies``: how many transformed copies of each image the
        classifier learns from, and the transform.

    Raises
    ------
    InputError
        If there is no preset of that name.

    Examples
    --------
    >>> import serkit as srk
    >>> srk.presets.gmm_per_class("mnist")["classifier"]["n_components"]
    12
    """
    training = {"scheduler": "onecycle", "likelihood": "bernoulli"}
    presets: dict[str, Preset] = {
        "digits": {
            "encoder": {
                **training,
                "latent_dim": 10,
                "hidden_sizes": (256,),
                "epochs": 150,
                "batch_size": 128,
            },
            "classifier": {"n_components": 2},
            "novelty": {"smoothing": 0.5},
        },
        "mnist": {
            "encoder": {
                **training,
                "latent_dim": 40,
                "hidden_sizes": (1000, 1000),
                "epochs": 20,
                "batch_size": 256,
                "augment": RandomAffine(),
            },
            "copies": (1, RandomAffine()),
            "classifier": {"n_components": 12, "reject_quantile": 0.04},
            "novelty": {"smoothing": 1.0, "reject_quantile": 0.04},
        },
        "fashion": {
            "encoder": {
                **training,
                "latent_dim": 64,
                "hidden_sizes": (1000, 500),
                "epochs": 25,
                "batch_size": 256,
                "likelihood": "gaussian",
                "noise_variance": 0.05,
            },
            "copies": (4, _of_clothes()),
            "classifier": {"n_components": 24, "tol": 3e-3},
            "novelty": {"smoothing": 1.0, "reject_quantile": 0.04},
        },
    }
    return _preset("gmm_per_class", presets, name)


def conv_latent_7d(name: str = "digits") -> Preset:
    """Arguments of a convolutional `AE` with seven latents.

    Parameters
    ----------
    name : {"digits", "mnist", "fashion"}
        The data they are for.

    Returns
    -------
    dict
        Arguments of the `AE`.

    Raises
    ------
    InputError
        If there is no preset of that name.

    Examples
    --------
    >>> import serkit as srk
    >>> srk.presets.conv_latent_7d("mnist")["filters"]
    (16, 32)
    """
    encoder = {
        "latent_dim": 7,
        "net": "conv",
        "filters": (16, 32),
        "batch_norm": True,
        "likelihood": "gaussian",
        "noise_variance": 0.05,
        "lr": 2e-3,
        "scheduler": "onecycle",
    }
    large = {**encoder, "hidden_sizes": (512, 256), "epochs": 15, "batch_size": 250}
    presets: dict[str, Preset] = {
        "digits": {**encoder, "hidden_sizes": (64,), "epochs": 100, "batch_size": 64},
        "mnist": large,
        "fashion": large,
    }
    return _preset("conv_latent_7d", presets, name)


def animals(name: str = "digits") -> Preset:
    """Arguments of convolutional autoencoders of photographs.

    Parameters
    ----------
    name : {"digits", "animals"}
        The data they are for.

    Returns
    -------
    dict
        Arguments of ``encoder`` (an `AE` or a `VAE`), and ``large_epochs``: the epochs of the nets
        that are trained several times.

    Raises
    ------
    InputError
        If there is no preset of that name.

    Examples
    --------
    >>> import serkit as srk
    >>> srk.presets.animals("animals")["encoder"]["filters"]
    (32, 64, 128)
    """
    encoder = {
        "net": "conv",
        "batch_norm": True,
        "hidden_sizes": (256,),
        "likelihood": "gaussian",
        "lr": 2e-3,
        "scheduler": "onecycle",
        "batch_size": 100,
    }
    small = {**encoder, "filters": (16, 32), "epochs": 40, "noise_variance": 0.05}
    large = {**encoder, "filters": (32, 64, 128), "epochs": 120, "noise_variance": 0.01}
    presets: dict[str, Preset] = {
        "digits": {"encoder": small, "large_epochs": 20},
        "animals": {"encoder": large, "large_epochs": 30},
    }
    return _preset("animals", presets, name)


def _preset(of: str, presets: dict[str, Preset], name: str) -> Preset:
    check_argument(f"presets.{of}", "name", name, Choice(*presets))
    return presets[name]


def _small_vae() -> Preset:
    """For the 1,797 embedded digits of 8 x 8 pixels."""
    return {
        "latent_dim": 10,
        "likelihood": "gaussian",
        "noise_variance": 0.05,
        "epochs": (100, 40),
        "batch_size": 128,
        "lr": 2e-3,
    }


def _conv_net() -> Preset:
    """A small convolutional net, for images of 28 x 28 pixels or fewer."""
    return {"net": "conv", "filters": (16, 32), "batch_norm": True}


def _large_vae() -> Preset:
    """For images of 28 x 28 pixels."""
    return {
        "latent_dim": 18,
        "hidden_sizes": (500, 500),
        "batch_size": 250,
        "augment": RandomAffine(),
    }


def _serket() -> Preset:
    """The original tutorial's nets and training."""
    return {
        "vae": {"latent_dim": 18, "hidden_sizes": (128,), "epochs": 200, "batch_size": 500},
        "gmm": {"n_init": 20, "tol": 1e-4, "use_variance": True},
    }


def _of_clothes() -> RandomAffine:
    return RandomAffine(degrees=4, shear=0.05, scale=0.05, shift=1)
