"""The tutorials' settings: each names arguments that its modules take."""

import pytest

from serkit import presets
from serkit.errors import InputError
from serkit.modules import AE, GMM, MLDA, VAE, GMMClassifier

NAMES = {
    "vae_gmm": ("default", "serket", "best", "mnist", "fashion"),
    "vae_gmm_mm": ("digits", "tutorial"),
    "vae_gmm_nn": ("digits", "tutorial"),
    "vae_gmm_mlda": ("digits", "tutorial"),
    "gmm_per_class": ("digits", "mnist", "fashion"),
    "conv_latent_7d": ("digits", "mnist", "fashion"),
    "animals": ("digits", "animals"),
}
KINDS = {"vae": VAE, "encoder": AE, "gmm": GMM, "classifier": GMMClassifier, "mlda": MLDA}
FIRST = {"gmm": (10,), "mlda": (10,), "encoder": (), "vae": (), "classifier": ()}


def test_every_preset_is_listed():
    assert set(presets.__all__) == set(NAMES)


@pytest.mark.parametrize(("of", "name"), [(of, name) for of in NAMES for name in NAMES[of]])
def test_arguments_are_in_the_range_of_their_modules(of, name):
    preset = getattr(presets, of)(name)
    arguments = {"encoder": preset} if of == "conv_latent_7d" else preset
    found = [key for key in arguments if key in KINDS]
    assert found
    for key in found:
        first = FIRST[key] or ((64,) if of == "animals" else ())
        KINDS[key](*first, **arguments[key]).check_options()


@pytest.mark.parametrize("of", NAMES)
def test_presets_are_the_callers_own(of):
    first = getattr(presets, of)()
    for value in first.values():
        if isinstance(value, dict):
            value.clear()
    first.clear()
    again = getattr(presets, of)()
    assert again
    assert all(again.values())


def test_unknown_names_are_told():
    with pytest.raises(InputError, match=r"presets\.vae_gmm: unknown name='worst'; expected one"):
        presets.vae_gmm("worst")
    with pytest.raises(InputError, match=r"presets\.animals: unknown name=\["):
        presets.animals(["animals"])
