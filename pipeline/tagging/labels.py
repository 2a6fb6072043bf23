"""Labels of clusters, and how probable a label is given the features where that is known.

Shape letters: N rows.
"""

import numpy as np

from pipeline.densities.gaussian_mixture.parameters import Mixtures, cdf, component_probabilities
from pipeline.formats.columns import Target
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import DatasetManifest
from pipeline.numerics.arrays import BoolArray, Columns, FloatArray
from pipeline.simulators.known_density.response import COMPONENT, COMPONENTS
from pipeline.tagging.settings import AboveThreshold, LabelColumn, LabelSettings, UnderPredicted


def label_rows(
    label: LabelSettings, rows: Columns, target: Target, predicted: FloatArray | None
) -> BoolArray:
    """Whether each row has the label, [N].

    Args:
        label: The definition.
        rows: The target, or the label's column, [N].
        target: What the dataset predicts.
        predicted: The first pass's prediction [N]; None where the definition needs none.
    """
    if isinstance(label, LabelColumn):
        return np.asarray(rows[label.column] == label.equals)
    return np.asarray(rows[target.name] > thresholds(label, predicted))


def thresholds(label: UnderPredicted | AboveThreshold, predicted: FloatArray | None) -> FloatArray:
    """What the target of a labelled row exceeds, [N], or one for all rows."""
    if isinstance(label, AboveThreshold) or predicted is None:
        return np.asarray(label.above, np.float64)
    return np.asarray(np.maximum(label.above, label.factor * predicted), np.float64)


def label_probability(
    label: LabelSettings, exact: Mixtures, predicted: FloatArray | None
) -> FloatArray | None:
    """Exact probability of the label given the features, [N]; None where it is not known.

    Of a column it is known for the component that a simulated response was drawn from.

    Args:
        label: The definition.
        exact: The exact densities of log10 of the target, cut as the sample was.
        predicted: As in `label_rows`.
    """
    if not isinstance(label, LabelColumn):
        limit_N = np.log10(np.broadcast_to(thresholds(label, predicted), exact.upper.shape))
        return np.asarray(1.0 - cdf(exact, limit_N), np.float64)
    probability_SNK = component_probabilities(exact)
    number = int(label.equals)
    if label.column != COMPONENT or not 0 <= number < probability_SNK.shape[2]:
        return None
    return np.asarray(probability_SNK[:, :, number].sum(axis=0), np.float64)


def true_component(manifest: DatasetManifest) -> LabelColumn | None:
    """The label that a simulated sample knows: the component that no regression can learn."""
    known = any(column.name == COMPONENT for column in manifest.columns)
    if not known:
        return None
    return LabelColumn(column=COMPONENT, equals=float(COMPONENTS.index("resistant")))


def describe_label(label: LabelSettings, target: Target) -> str:
    """The definition of the label as a sentence for the report."""
    if isinstance(label, LabelColumn):
        return f"{label.column} is {label.equals:g}"
    large = f"{target.name} > {label.above:g}"
    if isinstance(label, AboveThreshold):
        return large
    return f"{large} and {target.name} > {label.factor:g} x that of {label.regression}"


def check_label(label: LabelSettings, manifest: DatasetManifest) -> None:
    """Check that the dataset has what the definition reads.

    Raises:
        UserError: It lacks the column, or has no truth.
    """
    manifest.require_target()
    columns = [column.name for column in manifest.columns]
    if isinstance(label, LabelColumn) and label.column not in columns:
        msg = (
            f"tag.label.column: the dataset has no column {label.column}, it has "
            f"{', '.join(columns)}; add it to dataset.extras or choose another label"
        )
        raise UserError(msg)
