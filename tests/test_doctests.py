"""The examples in docstrings: they run, and every public class has one."""

import doctest
import importlib
import pkgutil

import pytest

import serkit
import serkit.modules

NAMES = [
    module.name
    for package in (serkit, serkit.modules)  # whose folders lie beside each other
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]
CLASSES = {
    f"{package.__name__}.{name}": value
    for package in (serkit, serkit.modules)
    for name in package.__all__
    if isinstance(value := getattr(package, name), type) and not issubclass(value, Exception)
}


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(name, pytestconfig):
    flags = [doctest.OPTIONFLAGS_BY_NAME[f] for f in pytestconfig.getini("doctest_optionflags")]
    result = doctest.testmod(importlib.import_module(name), optionflags=sum(flags))
    assert result.failed == 0


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_class_has_an_example(name):
    examples = doctest.DocTestParser().get_examples(CLASSES[name].__doc__ or "")
    assert examples
