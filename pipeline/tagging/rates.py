"""How often clusters are tagged, and how well labels are found: a mergeable summary of rows.

Shape letters: N rows, B bins.

The score above which a cluster is tagged follows from the rates.

Shape letters: N rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from pipeline.evaluation.axes import ResolvedAxis
from pipeline.formats.errors import UserError
from pipeline.numerics.arrays import (
    BoolArray,
    Columns,
    Float32Array,
    FloatArray,
    IntArray,
    RealArray,
)
from pipeline.statistics.binning import Spacing
from pipeline.statistics.histogram import FineHistogram
from pipeline.statistics.moments import BinMoments

# Of a probability p: log(p / (1 - p)), fine enough that the AUC is right to 1e-4.
LOGIT = Spacing(scale="linear", low=-16.0, high=16.0, cells=8_000)
TAGGED = "tagged"


def logit(probability_N: RealArray) -> FloatArray:
    """log(p / (1 - p)), infinite at 0 and 1."""
    wide_N = probability_N.astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(wide_N) - np.log1p(-wide_N), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class TagRows:
    """N rows as a summary needs them.

    Attributes:
        bins: By axis: the bin of each row, as `np.searchsorted` of the edges.
        weight: [N]; None for 1.
        is_tagged: [N].
        truths: By name: whether each row has that label, [N].
        scores: By name: a ranking, [N] probabilities.
        shares: By name: what else is averaged in bins, [N].
    """

    bins: Mapping[str, IntArray]
    weight: FloatArray | None
    is_tagged: BoolArray
    truths: Mapping[str, BoolArray]
    scores: Mapping[str, RealArray]
    shares: Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class TagSummary:
    """Rates in bins and distributions of scores.

    Attributes:
        axes: What the rates are binned in.
        rates: By (axis, quantity): its mean in each bin, flow bins included.
        scores: By (ranking, truth, whether the row has it): the distribution of the logit.
        totals: By (truth, whether the row has it): the rate of tags.
    """

    axes: tuple[ResolvedAxis, ...]
    rates: dict[tuple[str, str], BinMoments]
    scores: dict[tuple[str, str, bool], FineHistogram]
    totals: dict[tuple[str, bool], BinMoments]

    @classmethod
    def of(cls, rows: TagRows, axes: tuple[ResolvedAxis, ...]) -> Self:
        """The summary of N rows from their scores, labels and weights."""
        quantities: Columns = {TAGGED: rows.is_tagged, **rows.truths, **rows.shares}
        rates = {
            (axis.name, name): BinMoments.of(
                values.astype(np.float64),
                bins=rows.bins[axis.name],
                num_bins=axis.num_bins,
                weights=rows.weight,
            )
            for axis in axes
            for name, values in quantities.items()
        }
        scores, totals = {}, {}
        tagged_N = rows.is_tagged.astype(np.float64)
        for truth, has_N in rows.truths.items():
            for side in (False, True):
                at_K = np.flatnonzero(has_N == side)
                weight = None if rows.weight is None else rows.weight[at_K]
                totals[truth, side] = BinMoments.of(tagged_N[at_K], weights=weight)
                for name, score_N in rows.scores.items():
                    values = logit(score_N[at_K])
                    scores[name, truth, side] = FineHistogram.of(values, LOGIT, weights=weight)
        return cls(axes, rates, scores, totals)

    def __add__(self, other: "TagSummary") -> "TagSummary":
        return TagSummary(
            self.axes,
            {key: value + other.rates[key] for key, value in self.rates.items()},
            {key: value + other.scores[key] for key, value in self.scores.items()},
            {key: value + other.totals[key] for key, value in self.totals.items()},
        )

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Each ranking with each of the truths that it is judged by."""
        return list(dict.fromkeys((ranking, truth) for ranking, truth, _ in self.scores))

    def auc(self, ranking: str, truth: str) -> float | None:
        """Probability that a row with the label ranks above one without; None if one is missing."""
        _, without, having = self._shares(ranking, truth)
        if without is None or having is None:
            return None
        below = np.cumsum(without) - without
        return float((having * (below + 0.5 * without)).sum())

    def figures(self) -> dict[str, float]:
        """Headline figures: AUCs, and the shares of rows that are tagged."""
        found: dict[str, float | None] = {
            f"auc.{ranking}.{truth}": self.auc(ranking, truth) for ranking, truth in self.pairs
        }
        for truth in dict.fromkeys(truth for truth, _ in self.totals):
            without, having = self.totals[truth, False], self.totals[truth, True]
            both = without + having
            for name, moments in (("loss", without), ("efficiency", having)):
                known = moments.weights[0] > 0
                found[f"{name}.{truth}"] = float(moments.mean[0]) if known else None
            found["rate"] = float(both.mean[0])
            found[f"share.{truth}"] = float(having.weights[0] / both.weights[0])
        return {name: value for name, value in found.items() if value is not None}

    def roc_table(self, points: int = 200) -> pa.Table:
        """Share of ordinary and of labelled rows above a score, at some scores, by ranking."""
        rows = []
        for ranking, truth in self.pairs:
            edges, without, having = self._shares(ranking, truth)
            if without is None or having is None:
                continue
            loss, efficiency = (np.cumsum(x[::-1])[::-1] for x in (without, having))
            wanted = np.linspace(0.0, 1.0, points)
            at = np.unique(np.searchsorted(-loss, -wanted).clip(0, len(loss) - 1))
            rows += [
                {
                    "ranking": ranking,
                    "truth": truth,
                    "score": float(1.0 / (1.0 + np.exp(-edges[i]))),
                    "loss": float(loss[i]),
                    "efficiency": float(efficiency[i]),
                }
                for i in at
            ]
        return pa.Table.from_pylist(rows, schema=ROC_SCHEMA)

    def rate_table(self) -> pa.Table:
        """Rates in the bins of each axis."""
        rows = []
        for axis in self.axes:
            names = [name for where, name in self.rates if where == axis.name]
            tagged = self.rates[axis.name, TAGGED]
            for b in range(1, axis.num_bins - 1):
                filled = tagged.counts[b] > 0 and tagged.weights[b] > 0
                for name in names:
                    rate = float(self.rates[axis.name, name].mean[b]) if filled else None
                    rows.append({
                        "axis": axis.name,
                        "quantity": name,
                        "rows": int(tagged.counts[b]),
                        "low": axis.edges[b - 1],
                        "high": axis.edges[b],
                        "rate": rate,
                        "rate_error": _rate_error(rate, tagged, b),
                    })
        return pa.Table.from_pylist(rows, schema=RATE_SCHEMA)

    def _shares(
        self, ranking: str, truth: str
    ) -> tuple[FloatArray, FloatArray | None, FloatArray | None]:
        """Lower edges of the fine bins, and what lies in each of rows without and with a label."""
        edges = np.concatenate([[-np.inf], LOGIT.edges()])
        shares = []
        for side in (False, True):
            histogram = self.scores[ranking, truth, side]
            dense = np.zeros(LOGIT.cells + 2)
            dense[histogram.fine_bins] = histogram.weights
            shares.append(dense / dense.sum() if dense.sum() > 0 else None)
        return edges, shares[0], shares[1]


def _rate_error(rate: float | None, moments: BinMoments, b: int) -> float | None:
    """Binomial, with the effective number of rows."""
    if rate is None:
        return None
    effective = moments.weights[b] ** 2 / moments.squares[b]
    return float(np.sqrt(max(rate * (1.0 - rate), 0.0) / effective))


RATE_SCHEMA = pa.schema([
    ("axis", pa.string()),
    ("quantity", pa.string()),
    ("rows", pa.int64()),
    *((name, pa.float64()) for name in ("low", "high", "rate", "rate_error")),
])
ROC_SCHEMA = pa.schema([
    ("ranking", pa.string()),
    ("truth", pa.string()),
    *((name, pa.float64()) for name in ("score", "loss", "efficiency")),
])


def choose_threshold(score_N: Float32Array, weight_N: FloatArray, loss: float) -> float:
    """The smallest score above which lies no more than a share of the weight of ordinary clusters.

    Args:
        score_N: Of ordinary clusters.
        weight_N: Theirs; single ones may be negative.
        loss: The share.

    Raises:
        UserError: There are no ordinary clusters, or their weights do not sum to more than 0.
    """
    total = float(weight_N.sum())
    if not total > 0.0:
        msg = (
            f"tag: the {len(score_N)} validation clusters without the label have weights that sum "
            f"to {total:g}; give dataset.split.validation a larger fraction"
        )
        raise UserError(msg)
    order_N = np.argsort(score_N, kind="stable")[::-1]
    sorted_N, above_N = score_N[order_N], np.cumsum(weight_N[order_N])
    # a threshold tags all clusters of a higher score: `above` of the last one of these counts
    is_last = np.append(sorted_N[1:] != sorted_N[:-1], True)
    too_much = np.flatnonzero(is_last & (above_N > loss * total))
    return float(sorted_N[too_much[0]])
