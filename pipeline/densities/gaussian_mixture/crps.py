"""The continuous ranked probability score of a row's density of l = log10 R; compiled.

CRPS(F, y) = integral over x of (F(x) - [x >= y])^2 (Matheson and Winkler, Management Science 22
(1976) 1087): in units of l, lower is better, and of a single number the absolute error. For a
mixture of C Gaussians that is not cut there is a closed form with C^2 terms, 62,500 for 50 networks
of five; the integral, which takes some hundred values of F, is for those and for cut ones.
"""

from typing import NamedTuple

import numpy as np

from pipeline.densities.gaussian_mixture.components import (
    centred_mass32,
    cut_row,
    finite_bounds,
    mass64,
    rough_moments,
)
from pipeline.densities.gaussian_mixture.network_outputs import NetworkOutputs, blocks_of
from pipeline.densities.gaussian_mixture.parameters import Mixtures
from pipeline.densities.gaussian_mixture.quantiles import shrink
from pipeline.densities.gaussian_mixture.records import (
    Components,
    Gaussians,
    Gaussians32,
    Offsets,
    row_of,
    small_of,
)
from pipeline.numerics.arrays import Float32Array, FloatArray
from pipeline.numerics.compiled import kernel
from pipeline.numerics.special import SQRT_2PI, aligned, aligned32, exp64, tail64

Bounds = tuple[FloatArray, FloatArray]


class CutMixture(NamedTuple):
    """A row's mixture as its distribution function is computed.

    In float32 about `centre` if nothing is cut (`is_whole`, 1 or 0), else in float64 from `start`.
    """

    gaussians: Gaussians
    offsets: Offsets
    small: Gaussians32
    small_weights: Float32Array
    centre: float
    total: float
    is_whole: float
    start: float


ERROR = 1e-5  # largest absolute error, in l

_NO_WEIGHT = 1e-300  # above what exp64 makes of the log weight of a component that only fills up
_FEW = 16  # components up to which the closed form is computed: 136 terms
_REACH = 9.0  # standard deviations beyond which the integrand is left out
_TOLERANCE = 5e-7  # of a panel
_RISE = 0.15  # of F within a panel: a steeper one may hide between the nodes of both rules
_PANELS = 64  # that may wait to be halved
_BLOCK = 128
_F = np.float32

# Gauss-Kronrod rule of 7 and 15 points (Piessens et al., QUADPACK, 1983), the right half.
_NODES = np.array([
    *(0.0, 0.207784955007898, 0.405845151377397, 0.586087235467691),
    *(0.741531185599394, 0.864864423359769, 0.949107912342759, 0.991455371120813),
])
_KRONROD = np.array([
    *(0.209482141084728, 0.204432940075298, 0.190350578064785, 0.169004726639267),
    *(0.140653259715525, 0.104790010322250, 0.063092092629979, 0.022935322010529),
])
_GAUSS = np.array([
    *(0.417959183673469, 0.0, 0.381830050505119, 0.0),
    *(0.279705391489277, 0.0, 0.129484966168870, 0.0),
])


def crps_of(mixtures: Mixtures | NetworkOutputs, points: FloatArray) -> FloatArray:
    """The score of each row's density at one l [N], to 1e-5 in l.

    Args:
        mixtures: N rows.
        points: [N], in l; NaN and infinity give NaN.
    """
    bounds = np.asarray(mixtures.lower, np.float64), np.asarray(mixtures.upper, np.float64)
    at, out = np.asarray(points, np.float64), np.full(len(mixtures.lower), np.nan)
    for rows, block in blocks_of(mixtures, _BLOCK):
        _score_rows(block, (bounds[0][rows], bounds[1][rows]), at[rows], out[rows])
    return out


@kernel
def _score_rows(block: FloatArray, bounds: Bounds, points: FloatArray, out: FloatArray) -> None:
    num_rows, _, size = block.shape
    wide, short = aligned(3, size), aligned32(5, size)
    room = wide[0], wide[1], wide[2]
    small, small_offsets = small_of(short)
    some = np.empty((3, _FEW))
    for i in range(num_rows):
        lower, upper, point = bounds[0][i], bounds[1][i], points[i]
        if not np.isfinite(point) or np.isnan(block[i, 0, 0]) or not lower < upper:
            continue
        row = row_of(block, i)
        count = _gather(row, (lower, upper), some)
        if count > 0:
            out[i] = _closed_form(some, count, point)
            continue
        centre, spread, _ = rough_moments(row)
        cut = cut_row(row, (lower, upper), room)
        start, end = finite_bounds(row, cut.lower, cut.upper)
        shrink(cut.gaussians, cut.offsets, centre, small, small_offsets)
        is_whole = 1.0 if lower == -np.inf and upper == np.inf else 0.0
        curve = CutMixture(
            cut.gaussians,
            cut.offsets,
            small,
            small_offsets.above,
            centre,
            cut.total,
            is_whole,
            start,
        )
        left, right = start, end
        # What a cut leaves may lie far from where most of the whole mixture does.
        if is_whole > 0.0 and spread > 0.0:
            left, right = max(start, centre - _REACH * spread), min(end, centre + _REACH * spread)
        inside = min(max(point, left), right)
        score = left - point if point < left else max(point - right, 0.0)
        score += _integral(curve, left, inside, 0.0) + _integral(curve, inside, right, 1.0)
        out[i] = score


@kernel
def _gather(row: Components, bounds: tuple[float, float], some: FloatArray) -> int:
    """How many components have a weight, and these: weight, mean and sigma [3, FEW].

    0 if they are more than a few, or if a bound cuts one of them closer than nine sigmas.
    """
    _, m, _, s, weights = row
    lower, upper = bounds
    count = 0
    for c in range(m.size):
        if weights[c] < _NO_WEIGHT:
            continue
        if count == _FEW or m[c] - _REACH * s[c] < lower or m[c] + _REACH * s[c] > upper:
            return 0
        some[0, count], some[1, count], some[2, count] = weights[c], m[c], s[c]
        count += 1
    return count


@kernel
def _closed_form(some: FloatArray, count: int, point: float) -> float:
    """E |X - y| - E |X - X'| / 2 (Grimit et al., Q. J. R. Meteorol. Soc. 132 (2006) 2925)."""
    total, distance, spread = 0.0, 0.0, 0.0
    for c in range(count):
        weight, mean, sigma = some[0, c], some[1, c], some[2, c]
        total += weight
        distance += weight * _mean_distance(point - mean, sigma)
        spread += weight * weight * _mean_distance(0.0, np.sqrt(2.0) * sigma)
        for d in range(c):
            both = np.sqrt(sigma * sigma + some[2, d] * some[2, d])
            spread += 2.0 * weight * some[0, d] * _mean_distance(mean - some[1, d], both)
    return distance / total - 0.5 * spread / (total * total)


@kernel
def _mean_distance(mean: float, sigma: float) -> float:
    """E |X| of a Gaussian: m (2 Phi(m / s) - 1) + 2 s phi(m / s)."""
    z = min(abs(mean) / sigma, 40.0)  # from where on the exponential is zero
    height = exp64(-0.5 * z * z)
    return abs(mean) * (1.0 - 2.0 * tail64(z) * height) + 2.0 * sigma * height / SQRT_2PI


@kernel
def _below(curve: CutMixture, x: float) -> float:
    """The distribution function; uncut ones in float32, to 4e-7."""
    if curve.is_whole > 0.0:
        mass = centred_mass32(curve.small, curve.small_weights, _F(x - curve.centre))
        share = 0.5 + mass / curve.total
    elif x > curve.start:
        share = mass64(curve.gaussians, curve.offsets, x)[0] / curve.total
    else:
        share = 0.0
    return min(max(share, 0.0), 1.0)


@kernel
def _integral(curve: CutMixture, left: float, right: float, less: float) -> float:
    """Of (F - less)^2, panels halved until both rules agree."""
    ends = np.empty((_PANELS, 4))
    score, waiting = 0.0, 1
    ends[0, 0], ends[0, 1] = left, right
    ends[0, 2], ends[0, 3] = _below(curve, left), _below(curve, right)
    while waiting > 0:
        waiting -= 1
        low, high, before, after = ends[waiting]
        is_last = waiting + 2 > _PANELS or not high - low > 1e-7
        if after - before < _RISE or is_last:
            fine, error = _panel(curve, low, high, less)
            if error < _TOLERANCE or is_last:
                score += fine
                continue
        middle = 0.5 * (low + high)
        half = _below(curve, middle)
        ends[waiting, 0], ends[waiting, 1] = low, middle
        ends[waiting, 2], ends[waiting, 3] = before, half
        ends[waiting + 1, 0], ends[waiting + 1, 1] = middle, high
        ends[waiting + 1, 2], ends[waiting + 1, 3] = half, after
        waiting += 2
    return score


@kernel
def _panel(curve: CutMixture, low: float, high: float, less: float) -> tuple[float, float]:
    """The integral by 15 points, and how far that by 7 of them is off."""
    half, middle = 0.5 * (high - low), 0.5 * (high + low)
    fine, coarse = 0.0, 0.0
    for j in range(_NODES.size):
        value = (_below(curve, middle + half * _NODES[j]) - less) ** 2
        if j > 0:
            value += (_below(curve, middle - half * _NODES[j]) - less) ** 2
        fine += _KRONROD[j] * value
        coarse += _GAUSS[j] * value
    return fine * half, abs(fine - coarse) * half
