"""scikit-learn's estimators, fitted or not, as bytes in the format of `skops`.

That is a zip of JSON and arrays. Only types that skops, or `_TRUSTED` here, knows to be harmless
are written and read: a file cannot name anything else to be imported or called. Trees are not
harmless by their type alone, as scikit-learn follows the numbers in them without looking whether
they are in range; so these are checked when they are read, before the trees are asked anything.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator

from ..errors import InputError, SavedFileError

if TYPE_CHECKING:
    from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
    from sklearn.neighbors import BallTree, KDTree
    from sklearn.tree._tree import Tree

# What skops has not listed: plain holders of numbers, functions that nothing calls before a fit,
# and trees.
_TRUSTED = [
    f"{module}.{name}"
    for module, names in {
        "functools": "partial",
        "numpy": "dtype mean",
        "sklearn._loss.loss": "HalfTweedieLoss HalfTweedieLossIdentity",
        "sklearn.calibration": "_CalibratedClassifier _SigmoidCalibration _TemperatureScaling",
        "sklearn.cluster._bisect_k_means": "_BisectingTree",
        "sklearn.cluster._kmeans": "_kmeans_single_elkan _kmeans_single_lloyd",
        "sklearn.ensemble._hist_gradient_boosting.predictor": "TreePredictor",
        "sklearn.feature_selection._mutual_info": "mutual_info_classif mutual_info_regression",
        "sklearn.feature_selection._univariate_selection": "chi2 f_classif f_regression",
        "sklearn.gaussian_process._gpc": "_BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels": "CompoundKernel ConstantKernel DotProduct "
        "ExpSineSquared Exponentiation Matern Product RBF RationalQuadratic Sum WhiteKernel",
        "sklearn.metrics._dist_metrics": "ChebyshevDistance64 EuclideanDistance64 "
        "ManhattanDistance64 MinkowskiDistance64",
        "sklearn.metrics._scorer": "_MultimetricScorer _PassthroughScorer _Scorer",
        "sklearn.model_selection._split": "GroupKFold KFold LeaveOneOut PredefinedSplit "
        "RepeatedKFold RepeatedStratifiedKFold ShuffleSplit StratifiedKFold StratifiedShuffleSplit "
        "TimeSeriesSplit",
        "sklearn.neighbors._ball_tree": "BallTree",
        "sklearn.neighbors._kd_tree": "KDTree",
        "sklearn.neural_network._stochastic_optimizers": "AdamOptimizer SGDOptimizer",
        "sklearn.tree._tree": "Tree",
        "sklearn.utils._bunch": "Bunch",
        "sklearn.utils.validation": "check_array",
    }.items()
    for name in names.split()
]


class Unsupported(InputError):
    """A value that files have no form for."""


def is_foreign(value: Any) -> bool:
    """Whether a value is an estimator, and not one of serkit's."""
    return isinstance(value, BaseEstimator) and not type(value).__module__.startswith("serkit.")


def dump(estimator: BaseEstimator) -> np.ndarray:
    """The bytes of an estimator, (n,) of uint8; Unsupported unless all in it is harmless."""
    kind = type(estimator).__name__
    try:
        from skops import io as skops
    except ImportError:
        raise Unsupported(
            f"a {kind}, which only skops can save: pip install '.[estimators]' in serkit's checkout"
        ) from None
    try:
        dumped = skops.dumps(estimator)
        unknown = sorted({*skops.get_untrusted_types(data=dumped)} - {*_TRUSTED})
    except Exception as error:  # what a foreign object raises when it is taken apart varies
        raise Unsupported(f"a {kind}, of which skops can make no safe file ({error})") from None
    if unknown:
        raise Unsupported(
            f"a {kind}, of which skops can make no safe file (it holds {', '.join(unknown)})"
        )
    return np.frombuffer(dumped, dtype=np.uint8)


def load(dumped: np.ndarray) -> BaseEstimator:
    """The estimator whose bytes these are; SavedFileError unless all in it is harmless."""
    try:
        from skops import io as skops
    except ImportError:
        raise SavedFileError(
            "it holds scikit-learn estimators, which are read by skops: "
            "pip install '.[estimators]' in serkit's checkout"
        ) from None
    content = dumped.tobytes()
    try:
        _check_sizes(content)
        estimator = skops.loads(content, trusted=_TRUSTED)
        if not isinstance(estimator, BaseEstimator):
            raise TypeError(f"it is a {type(estimator).__name__}")
        checks = _checks()
        for part in _parts(estimator):
            for kind, check in checks.items():
                if isinstance(part, kind):
                    check(part)
        return estimator
    except Exception as error:  # a file made by others can be wrong in any way
        raise SavedFileError(
            f"it holds a scikit-learn estimator that cannot be read safely ({error}); save it "
            "again, with the versions of scikit-learn and skops that are installed here"
        ) from None


# -- what is checked when it is read ---------------------------------------------------------------


def _check_sizes(content: bytes) -> None:
    """Raise ValueError for a zip that says it holds more bytes than it has."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > len(content):
            raise ValueError("it would unpack to more than is in the file")


def _parts(value: Any) -> Iterator[Any]:
    """A value and everything in it, each once."""
    waiting, seen = [value], dict[int, Any]()
    while waiting:
        part = waiting.pop()
        if isinstance(part, type) or id(part) in seen:
            continue
        seen[id(part)] = part
        yield part
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, list | tuple | set):
            waiting += part
        elif isinstance(part, np.ndarray):
            waiting += part.ravel().tolist() if part.dtype == object else []
        else:
            waiting += getattr(part, "__dict__", {}).values()


def _check_tree(tree: Tree) -> None:
    """Raise ValueError for a decision tree whose numbers lead out of it."""
    if tree.node_count > tree.capacity:
        raise ValueError("a tree has fewer nodes than it says")
    children = np.stack([tree.children_left, tree.children_right])
    _check_nodes(children, tree.children_left == -1, tree.feature, tree.n_features)


def _check_predictor(tree: TreePredictor) -> None:
    """Raise ValueError for a tree of histogram gradient boosting whose numbers lead out of it."""
    nodes, n_sets = tree.nodes, len(tree.raw_left_cat_bitsets)
    children = np.stack([nodes["left"], nodes["right"]]).astype(np.int64)
    n_features = 1 + int(nodes["feature_idx"].max(initial=0))  # `_check_histograms` knows them
    _check_nodes(children, nodes["is_leaf"] != 0, nodes["feature_idx"], n_features)
    if (nodes["bitset_idx"][nodes["is_categorical"] != 0] >= n_sets).any():
        raise ValueError("a tree has fewer sets of categories than it says")


def _check_nodes(
    children: np.ndarray, is_leaf: np.ndarray, feature: np.ndarray, n_features: int
) -> None:
    """Raise ValueError unless children (2, n), after their parents, and features (n,) are there."""
    inner = ~is_leaf
    parents = np.flatnonzero(inner)
    in_range = (children[:, inner] > parents) & (children[:, inner] < len(is_leaf))
    known = (feature[inner] >= 0) & (feature[inner] < n_features)
    if not (len(is_leaf) and in_range.all() and known.all()):
        raise ValueError("a tree has nodes or columns that are not there")


def _check_neighbours(tree: KDTree | BallTree) -> None:
    """Raise ValueError unless a tree is the one that its rows make."""
    rows, *structure, leaf_size, _, _, _, _, _, _, metric, _ = tree.__getstate__()
    again = type(tree)(rows, leaf_size, metric).__getstate__()
    if not all(map(np.array_equal, structure, again[1:4])):
        raise ValueError("a tree of neighbours is not that of its rows")


def _check_forest(forest: Any) -> None:
    """Raise ValueError unless trees are of as many columns as they are asked with."""
    if not hasattr(forest, "estimators_"):
        return  # not fitted
    trees = np.asarray(forest.estimators_, dtype=object)
    subsets = getattr(forest, "estimators_features_", None)
    n_features = [forest.n_features_in_] * trees.size if subsets is None else map(len, subsets)
    fit = [t.tree_.n_features == n for t, n in zip(trees.ravel(), n_features, strict=True)]
    per_iteration = getattr(forest, "n_trees_per_iteration_", None)
    if not all(fit) or (per_iteration and trees.shape[1:] != (per_iteration,)):
        raise ValueError("a forest has other trees than it says")


def _check_histograms(model: Any) -> None:
    """Raise ValueError unless trees know no more columns than they are asked with."""
    predictors = [tree for trees in getattr(model, "_predictors", []) for tree in trees]
    if any((tree.nodes["feature_idx"] >= model.n_features_in_).any() for tree in predictors):
        raise ValueError("a tree has columns that are not there")


def _checks() -> dict[type | tuple[type, ...], Callable[[Any], None]]:
    """What checks each kind of part; trees are loaded here, as that takes a while."""
    from sklearn import ensemble
    from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
    from sklearn.neighbors import BallTree, KDTree
    from sklearn.tree._tree import Tree

    return {
        Tree: _check_tree,
        TreePredictor: _check_predictor,
        (KDTree, BallTree): _check_neighbours,
        (
            ensemble.ExtraTreesClassifier,
            ensemble.ExtraTreesRegressor,
            ensemble.GradientBoostingClassifier,
            ensemble.GradientBoostingRegressor,
            ensemble.IsolationForest,
            ensemble.RandomForestClassifier,
            ensemble.RandomForestRegressor,
            ensemble.RandomTreesEmbedding,
        ): _check_forest,  # which do not look at the number of columns for each tree
        (
            ensemble.HistGradientBoostingClassifier,
            ensemble.HistGradientBoostingRegressor,
        ): _check_histograms,
    }
