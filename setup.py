"""Packaging: the folder modules/ is installed as serkit.modules."""

import re
from pathlib import Path

from setuptools import find_packages, setup

PACKAGES = find_packages(include=["serkit", "serkit.*"])
FAMILIES = ["serkit.modules", *(f"serkit.modules.{name}" for name in find_packages("modules"))]

EXTRAS = {
    "audio": ["librosa>=0.11"],
    "estimators": ["skops>=0.13"],
    "export": ["onnx>=1.18", "onnxruntime>=1.22", "onnxscript>=0.5"],
    "frames": ["pandas>=2.2"],
    "interactive": ["plotly>=6"],
    "tensorboard": ["tensorboard>=2.18"],
    "yaml": ["PyYAML>=6"],
}
DOCS = ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26", "ziamath>=0.13"]
TESTS = [
    "h5py>=3.12",
    "hmmlearn>=0.3.3",  # only compared with
    "mypy>=1.13",
    "playwright>=1.60",
    "polars>=1",
    "pyarrow>=18",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.9",
    "zarr>=3",
]


def readme() -> str:
    """The README as a package index can show it: without what lies only in the repository."""
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    text = re.sub(r"(?ms)^!\[.*?\)\n|^```mermaid\n.*?^```\n", "", text)
    text = re.sub(r"(?ms)^\*The Serket tutorial.*?\*\n\n", "", text, count=1)  # of the pictures
    return re.sub(r"\[([^][]+)\]\((?!http|#)[^)]+\)", r"\1", text)


setup(
    name="serkit",
    version="0.1.0",
    description="Probabilistic and neural modules, connected into a graph, that learn together",
    long_description=readme(),
    long_description_content_type="text/markdown",
    author="serkit developers",
    license_expression="MIT",
    license_files=["LICENSE"],
    keywords=["clustering", "generative models", "mixture models", "VAE", "multimodal", "Serket"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=[*PACKAGES, *FAMILIES],
    package_dir={"serkit": "serkit", "serkit.modules": "modules"},
    package_data={
        "serkit": ["py.typed"],
        "serkit.explore": ["page.html", "page.css", "page.js", "layers.js"],
    },
    entry_points={"console_scripts": ["serkit = serkit.command:main"]},
    # The floors are tried by `python -m tests.compat lower`.
    install_requires=[
        "joblib>=1.3",
        "matplotlib>=3.9",
        "numpy>=2.0",
        "pillow>=10",
        "safetensors>=0.5",
        "scikit-learn>=1.6",
        "scipy>=1.13",
        "threadpoolctl>=3.1",
        "torch>=2.5",
        "tqdm>=4.66",
    ],
    extras_require={**EXTRAS, "docs": DOCS, "dev": sorted({*sum(EXTRAS.values(), DOCS), *TESTS})},
)
