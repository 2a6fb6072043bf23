"""Tables of spectra, distributions and densities in two dimensions."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.evaluation.accumulators import (
    MAP,
    PAIR_PLANES,
    PAIR_SIGMA,
    PIT,
    PLANE,
    PULL_LINEAR,
    PULL_LOG,
    SIGMA_RATIO,
    SIGMAS,
    SPECTRUM,
    WINDOW,
    Figure,
)
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.rows import EVERYWHERE, TARGET
from pipeline.evaluation.tables.schemas import Block, BlockTable, Row, RowTable, schema
from pipeline.numerics.arrays import FloatArray, IntArray
from pipeline.statistics.gaussian_fit import fit_core
from pipeline.statistics.histogram import FineHistogram

# Display bins over the fine ranges; with the defaults 0.05 and 0.01 wide, 50 and 120 a decade.
PULL_DISPLAY_BINS = 800
PAIR_DISPLAY_BINS = 400
PIT_DISPLAY_BINS = 50
SIGMA_DISPLAY_BINS = 450
RATIO_DISPLAY_BINS = 700


def spectrum_blocks(evaluation: Evaluation) -> Iterator[Block]:
    """Rows of each class in the bins of each axis, and their share of all (Figs. 1, 16, 17)."""
    plan = evaluation.plan
    for axis in plan.axes_of("spectra"):
        spectrum = evaluation.profile(SPECTRUM, EVERYWHERE, axis.name)
        if spectrum is None:
            continue
        rows_all, whole, whole_squares = _counts(spectrum)
        whole = np.where(whole > 0, whole, np.nan)
        for bit, name in enumerate((EVERYWHERE, *plan.classes), -1):
            rows, weights, squares = _counts(spectrum, bit)
            share = weights / whole
            error = np.sqrt((1 - share) ** 2 * squares + share**2 * (whole_squares - squares))
            yield {
                "axis": axis.name,
                "class": name,
                "rows": rows,
                "low": np.array(axis.edges[:-1]),
                "high": np.array(axis.edges[1:]),
                "weight": weights,
                "weight_error": np.sqrt(squares),
                "fraction": share,
                "fraction_error": np.where(rows_all > 1, error / whole, np.nan),
            }


def window_blocks(evaluation: Evaluation) -> Iterator[Block]:
    """Spectra of the clusters in the window of uncertainties."""
    for name in evaluation.sets:
        for axis in evaluation.plan.axes_of("spectra"):
            histogram = evaluation.profile(WINDOW, name, axis.name)
            if histogram is None:
                continue
            rows, weights, _ = _counts(histogram)
            total = histogram.weights.sum()
            yield {
                "set": name,
                "axis": axis.name,
                "rows": rows,
                "low": np.array(axis.edges[:-1]),
                "high": np.array(axis.edges[1:]),
                "weight": weights,
                "fraction": weights / (total if total > 0 else np.nan),
            }


def _counts(spectrum: FineHistogram, bit: int = -1) -> tuple[IntArray, FloatArray, FloatArray]:
    """Rows, sums of w and of w^2 in the bins between the edges, of a class or (-1) of all rows."""
    owner, fine_bin = np.divmod(spectrum.fine_bins, spectrum.spacing.width)
    keep = np.ones(len(fine_bin), bool) if bit < 0 else ((fine_bin - 1) >> bit) % 2 == 1
    rows, weights, squares = (
        np.asarray(np.bincount(owner[keep], each[keep], spectrum.num_bins)[1:-1], np.float64)
        for each in (spectrum.counts, spectrum.weights, spectrum.squares)
    )
    return rows.astype(np.int64), weights, squares


def plane_blocks(evaluation: Evaluation) -> Iterator[Block]:
    """Occupied fine bins of the target against some axes, without flow (Figs. 4 and 5)."""
    for axis in evaluation.plan.plane_axes:
        for name in (TARGET, *evaluation.sets):
            if (histogram := evaluation.profile(PLANE, name, axis.name)) is not None:
                fine_bins = _plane(histogram, np.asarray(axis.edges), ("target_low", "target_high"))
                yield {"axis": axis.name, "set": name} | fine_bins


def map_blocks(evaluation: Evaluation) -> Iterator[Block]:
    """Where clusters are: all, and those of a set's window of uncertainties (Fig. 14)."""
    plan = evaluation.plan.map
    if plan is None:
        return
    for key, histogram in evaluation.histograms_of(MAP):
        yield {"set": key.name} | _plane(histogram, plan.z.edges(), ("r_low", "r_high"))


def pair_plane_blocks(evaluation: Evaluation) -> Iterator[Block]:
    """Relative uncertainties and pulls of two sets in two dimensions (Figs. 11a and 12a)."""
    for name, figure in PAIR_PLANES.items():
        for key, histogram in evaluation.histograms_of(figure):
            across = histogram.spacing.edges()
            fine_bins = _plane(histogram, across, ("other_low", "other_high"))
            yield {"figure": name, "set": key.name} | fine_bins


def histogram_blocks(
    evaluation: Evaluation, figures: Sequence[Figure[FineHistogram]], display_bins: int
) -> Iterator[Block]:
    """Inclusive histograms in display bins; flow is left out, densities are per unit of x."""
    for key, histogram in evaluation.histograms_of(*figures):
        if not histogram.weights.sum() > 0:
            continue
        group = max(1, histogram.spacing.cells // display_bins)
        edges, rows, weights, squares = histogram.rebinned(group)
        total = float(histogram.weights.sum())
        if not len(seen := np.flatnonzero(rows)):
            continue
        shown = slice(int(seen[0]), int(seen[-1]) + 1)
        yield {
            "figure": key.figure.name,
            "set": key.name,
            "population": key.where,
            "low": edges[:-1][shown],
            "high": edges[1:][shown],
            "rows": rows[shown],
            "fraction": (weights / total)[shown],
            "fraction_error": (np.sqrt(squares) / total)[shown],
        }


def fit_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Two-sided Gaussians fitted to the cores of pulls and of relative differences."""
    for key, histogram in evaluation.histograms_of(PULL_LOG, PULL_LINEAR, PAIR_SIGMA):
        if fit := fit_core(histogram):
            names = {"figure": key.figure.name, "set": key.name, "population": key.where}
            yield names | {name: getattr(fit, name) for name in fit.__slots__}


def _plane(histogram: FineHistogram, across: FloatArray, names: tuple[str, str]) -> Block:
    """Occupied fine bins without flow: edges in both directions, rows and sums of weights."""
    up = histogram.spacing.edges()
    x, y = np.divmod(histogram.fine_bins, histogram.spacing.width)
    inside = (x > 0) & (x < len(across)) & (y > 0) & (y < len(up))
    x, y = x[inside], y[inside]
    return {
        "rows": histogram.counts[inside],
        "low": across[x - 1],
        "high": across[x],
        names[0]: up[y - 1],
        names[1]: up[y],
        "weight": histogram.weights[inside],
    }


def _histogram_table(display_bins: int, *figures: Figure[FineHistogram]) -> BlockTable:
    """A table of inclusive histograms."""
    return BlockTable(
        schema("figure set population", "rows", "low high fraction fraction_error"),
        functools.partial(histogram_blocks, figures=figures, display_bins=display_bins),
    )


HISTOGRAM_TABLES: dict[str, RowTable | BlockTable] = {
    "spectrum": BlockTable(
        schema("axis class", "rows", "low high weight weight_error fraction fraction_error"),
        spectrum_blocks,
    ),
    "window": BlockTable(schema("set axis", "rows", "low high weight fraction"), window_blocks),
    "plane": BlockTable(
        schema("axis set", "rows", "low high target_low target_high weight"), plane_blocks
    ),
    "map": BlockTable(schema("set", "rows", "low high r_low r_high weight"), map_blocks),
    "pair_plane": BlockTable(
        schema("figure set", "rows", "low high other_low other_high weight"), pair_plane_blocks
    ),
    "pair_sigma": _histogram_table(PAIR_DISPLAY_BINS, PAIR_SIGMA),
    "pull": _histogram_table(PULL_DISPLAY_BINS, PULL_LOG, PULL_LINEAR),
    "pull_fit": RowTable(
        schema(
            "figure set population",
            real="mean left right mean_error left_error right_error height low high",
        ),
        fit_rows,
    ),
    "sigma": _histogram_table(SIGMA_DISPLAY_BINS, *SIGMAS),
    "pit": _histogram_table(PIT_DISPLAY_BINS, PIT),
    "sigma_ratio": _histogram_table(RATIO_DISPLAY_BINS, SIGMA_RATIO),
}
