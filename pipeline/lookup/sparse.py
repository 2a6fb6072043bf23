"""Values for all bins of a table: those with too few entries take them from coarser bins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.lookup.bins import Floats, Indices
from pipeline.lookup.medians import FineSums

Levels = NDArray[np.uint8]

# What a table's bins have when some of its last axes are left out: estimates [coarser bins].
Estimate = Callable[[int], Floats]


@dataclass(frozen=True, slots=True)
class FilledTable:
    """A value for each of B bins, and where it is from.

    Attributes:
        entries: [B] training rows in the bin itself.
        values: [B].
        levels: [B] 0: the bin's own entries; k < A: those of the bin without its last k of A axes;
            A: those of the nearest bin of the first axis; A + 1: those of all rows.
    """

    entries: Indices
    values: Floats
    levels: Levels


def fill_table(
    entries: Indices, estimate: Estimate, shape: Sequence[int], min_entries: int
) -> FilledTable:
    """The value of every bin from the finest bins that have enough entries.

    Args:
        entries: [B] training rows, the last axis running fastest.
        estimate: Given how many entries run into one coarser bin: their values [B / stride]; NaN
            where there is none.
        shape: Bins of each of A axes.
        min_entries: A bin with fewer is sparse.
    """
    values, levels = np.full(len(entries), np.nan), np.zeros(len(entries), np.uint8)
    coarse = np.full(shape[0], np.nan)
    for level in range(len(shape)):
        stride = int(np.prod(shape[len(shape) - level :]))
        coarse = estimate(stride)
        coarse[entries.reshape(-1, stride).sum(axis=1) < min_entries] = np.nan
        found = np.repeat(coarse, stride)
        new = np.isnan(values) & ~np.isnan(found)
        values[new], levels[new] = found[new], level
    missing = np.isnan(values)
    found = np.repeat(_nearest(coarse), len(entries) // shape[0])
    values[missing], levels[missing] = found[missing], len(shape)
    missing = np.isnan(values)
    values[missing], levels[missing] = estimate(len(entries))[0], len(shape) + 1
    return FilledTable(entries, values, levels)


def _nearest(values: Floats) -> Floats:
    """Each value that is NaN replaced by that of the nearest bin, the lower of two."""
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return values
    distance = np.abs(np.arange(len(values))[:, None] - known[None, :])
    return np.asarray(values[known[np.argmin(distance, axis=1)]])


def share_of(part: Floats, rest: Floats) -> Estimate:
    """Estimates part / (part + rest), from sums [B]."""

    def estimate(stride: int) -> Floats:
        above = part.reshape(-1, stride).sum(axis=1)
        total = above + rest.reshape(-1, stride).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(total > 0, np.clip(above / total, 0.0, 1.0), np.nan)

    return estimate


def mean_of(values: Floats, weights: Floats) -> Estimate:
    """Estimates the weighted mean of something positive, from sums [B]."""

    def estimate(stride: int) -> Floats:
        above = values.reshape(-1, stride).sum(axis=1)
        below = weights.reshape(-1, stride).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            # Negative weights may leave a bin without a mean that is one.
            return np.where((below > 0) & (above > 0), above / below, np.nan)

    return estimate


def median_of(fine: FineSums, num_bins: int) -> Estimate:
    """Estimates the median of what fine cells hold in B bins."""

    def estimate(stride: int) -> Floats:
        return fine.medians(num_bins, stride)

    return estimate
