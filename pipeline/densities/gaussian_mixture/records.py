"""What the kernels of a mixture hand to each other, as named records that Numba compiles.

Letters: C components of a row, of all networks, padded with components without weight.
"""

from typing import NamedTuple

from pipeline.numerics.arrays import Float32Array, FloatArray
from pipeline.numerics.compiled import kernel


class Components(NamedTuple):
    """The components [C] of a row.

    The density of l is the sum of exp(log_weight - z^2 / 2) / (sigma sqrt(2 pi)) over its total.
    """

    log_weights: FloatArray
    means: FloatArray
    inverse: FloatArray  # 1 / sigma
    sigmas: FloatArray
    weights: FloatArray


class Gaussians(NamedTuple):
    """What masses and densities of the components [C] need of them, float64."""

    log_weights: FloatArray
    means: FloatArray
    inverse: FloatArray


class Gaussians32(NamedTuple):
    """The same in float32, with means relative to a reference near the centre."""

    log_weights: Float32Array
    means: Float32Array
    inverse: Float32Array


class Offsets(NamedTuple):
    """What is added to a component's tail [C] above its centre and below; see `cut_row`."""

    above: FloatArray
    below: FloatArray


class Offsets32(NamedTuple):
    """The same in float32."""

    above: Float32Array
    below: Float32Array


class CutRow(NamedTuple):
    """A row's mixture cut to its bounds; see `components.cut_row`.

    Lower and upper are in l, an infinite one replaced by a far point unless both are. Total is the
    mass between them in the units of the log weights, from which `shift` was taken.
    """

    gaussians: Gaussians
    offsets: Offsets
    lower: float
    upper: float
    total: float
    shift: float


class Frame(NamedTuple):
    """The range of a search, in l, and its middle, from which the grid counts."""

    low: float
    high: float
    middle: float


class Core(NamedTuple):
    """Half the length of the range, and where most of the mass is, relative to the middle."""

    half: float
    first: float
    last: float


class Small(NamedTuple):
    """The components [C] in float32, means relative to the middle of the range."""

    log_weights: Float32Array
    means: Float32Array
    inverse: Float32Array
    sigmas: Float32Array


class Runs(NamedTuple):
    """Of each component [C], at a point of the grid: value, ratio to the next, and decay of that.

    The ratio itself is multiplied by the decay, exp(-(step / sigma)^2), from point to point.
    """

    values: Float32Array
    ratios: Float32Array
    decays: Float32Array


class Tilted(NamedTuple):
    """A tilt, the heights [C] of the components with it, and the highest."""

    tilt: float
    heights: Float32Array
    highest: float


class Extent(NamedTuple):
    """Hull of the centres that count; largest 1 / sigma of the high components, and of all seen."""

    left: float
    right: float
    steepest: float
    narrowest: float


class Grid(NamedTuple):
    """Even points: the first, the last, their distance and the number of intervals."""

    first: float
    last: float
    step: float
    size: int


class Intervals(NamedTuple):
    """Density at the points of a grid, and by interval what narrow components may add to it.

    The third is the largest 1 / sigma of these.
    """

    values: Float32Array
    added: Float32Array
    steepest: Float32Array


class Sketches(NamedTuple):
    """Of each row: its grid, and the densities at the points.

    The four numbers of a grid are its first point in l, step and number of intervals (zero if it
    is too coarse), and what the values are to be multiplied by.
    """

    grids: FloatArray
    values: Float32Array


class Cubic(NamedTuple):
    """A density between two points: values and slopes, per step, at both."""

    value0: float
    slope0: float
    value1: float
    slope1: float


class Levels(NamedTuple):
    """Probabilities of quantiles, rising, and the quantiles of a standard Gaussian there."""

    probabilities: FloatArray
    gaussian: FloatArray


class Integrals(NamedTuple):
    """Of each component [C], within a range: the integrals of 1, R, R^2, l and l^2."""

    mass: FloatArray
    first: FloatArray
    second: FloatArray
    log_first: FloatArray
    log_second: FloatArray


class Edges(NamedTuple):
    """Of each component [C]: sigmas to the edges of a range, and exp(a - z^2 / 2) there."""

    to_low: FloatArray
    at_low: FloatArray
    at_high: FloatArray
    to_high: FloatArray


class Averages(NamedTuple):
    """Of each network: its share of the averaged density, one over it, and means of four powers."""

    shares: FloatArray
    inverse: FloatArray
    means: FloatArray
    squares: FloatArray
    log_means: FloatArray
    log_squares: FloatArray


@kernel
def row_of(block: FloatArray, i: int) -> Components:
    """Views of a row of `network_outputs.blocks_of`."""
    return Components(block[i, 0], block[i, 1], block[i, 2], block[i, 3], block[i, 4])


@kernel
def small_of(short: Float32Array) -> tuple[Gaussians32, Offsets32]:
    """Room for a row in float32, as views of an array [5, C]."""
    return Gaussians32(short[0], short[1], short[2]), Offsets32(short[3], short[4])
