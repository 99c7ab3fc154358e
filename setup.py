"""Packaging: the folder modules/ is installed as serkit.modules."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGES = find_packages(include=["serkit", "serkit.*"])
FAMILIES = ["serkit.modules", *(f"serkit.modules.{name}" for name in find_packages("modules"))]

setup(
    name="serkit",
    version="0.1.0",
    description="Probabilistic and neural modules, connected into a graph, that learn together",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=[*PACKAGES, *FAMILIES],
    package_dir={"serkit": "serkit", "serkit.modules": "modules"},
    package_data={
        "serkit": ["py.typed"],
        "serkit.explore": ["page.html", "page.css", "page.js", "layers.js"],
    },
    entry_points={"console_scripts": ["serkit = serkit.command:main"]},
    install_requires=[
        "joblib>=1.3",
        "matplotlib>=3.8",
        "numpy>=2.0",
        "pillow>=10",
        "safetensors>=0.5",
        "scikit-learn>=1.6",
        "scipy>=1.13",
        "torch>=2.13",
        "tqdm>=4.66",
    ],
    extras_require={
        "audio": ["librosa>=0.11"],
        "frames": ["pandas>=2.2"],
        "estimators": ["skops>=0.13"],
        "interactive": ["plotly>=6"],
        "tensorboard": ["tensorboard>=2.18"],
        "export": ["onnx>=1.18", "onnxruntime>=1.22", "onnxscript>=0.5"],
        "dev": [
            "h5py>=3.12",
            "hmmlearn>=0.3.3",
            "librosa>=0.11",
            "mypy>=1.13",
            "onnx>=1.18",
            "onnxruntime>=1.22",
            "onnxscript>=0.5",
            "pandas>=2.2",
            "playwright>=1.60",
            "plotly>=6",
            "polars>=1",
            "pyarrow>=18",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "skops>=0.13",
            "tensorboard>=2.18",
            "zarr>=3",
        ],
    },
)
