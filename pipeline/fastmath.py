"""Branch-free exp and Gaussian tails that LLVM turns into vector instructions, and row loading.

With the exp and erfc of libm the loops over components stay scalar, five to ten times slower. The
exponentials must not be compiled with fastmath's "reassoc": their rounding trick needs (t + c) - c
to be done as it is written.
"""

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.compiled import kernel, summing_kernel

Vector = NDArray[np.float64]
Vector32 = NDArray[np.float32]
Parts = tuple[Vector, Vector, Vector]  # log weights, means, 1 / sigma of the components of a row
Parts32 = tuple[Vector32, Vector32, Vector32]
Parameters = tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]

LN10 = math.log(10.0)
SQRT_2PI = math.sqrt(2.0 * math.pi)
FAR = 40.0  # sigmas from the centre at which a Gaussian is zero in float64

_F = np.float32
_CENTRE = 3.75 * math.sqrt(2.0)  # the map (z - c) / (z + c) brings [0, inf) to [-1, 1)
_ROOT2 = math.sqrt(2.0)


@kernel
def exp64(x: float) -> float:
    """exp(x) to 1e-15 relative; x outside [-708, 700] counts as that bound.

    exp(x) = 2^n exp(r) with |r| < ln(2) / 2: adding 1.5 * 2^52 leaves n in the low bits, which
    become the exponent; Chebyshev fit of degree 10 for exp(r).
    """
    x = min(max(x, -708.0), 700.0)
    shifted = x * 1.4426950408889634 + 6755399441056767.0  # 1.5 * 2^52 + 1023
    n = shifted - 6755399441056767.0
    r = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10
    p = 2.763265575933203e-07
    p = p * r + 2.7640198843428347e-06
    p = p * r + 2.480148543844738e-05
    p = p * r + 0.00019841170226646184
    p = p * r + 0.0013888888952356135
    p = p * r + 0.008333333385702748
    p = p * r + 0.04166666666648794
    p = p * r + 0.16666666666554303
    p = p * r + 0.5000000000000019
    p = p * r + 1.0000000000000067
    p = p * r + 1.0
    return p * np.int64(np.float64(shifted).view(np.int64) << np.int64(52)).view(np.float64)


@kernel
def exp32(x: np.float32) -> np.float32:
    """exp(x) in float32 to 1e-7 relative; x outside [-87, 87] counts as that bound."""
    x = min(max(x, _F(-87.0)), _F(87.0))
    shifted = x * _F(1.4426950408889634) + _F(12583039.0)  # 1.5 * 2^23 + 127
    n = shifted - _F(12583039.0)
    r = (x - n * _F(0.693359375)) + n * _F(2.12194440e-4)
    p = _F(0.0013948592779495662)
    p = p * r + _F(0.008375137267937035)
    p = p * r + _F(0.04166621809479359)
    p = p * r + _F(0.16666415376600746)
    p = p * r + _F(0.500000010781411)
    p = p * r + _F(1.000000037750115)
    p = p * r + _F(1.0)
    return p * np.int32(np.float32(shifted).view(np.int32) << np.int32(23)).view(np.float32)


@kernel
def tail64(z: float) -> float:
    """(1 - Phi(z)) exp(z^2 / 2) for 0 <= z < inf, to 1e-12 relative.

    It is erfcx(z / sqrt 2) / 2; (1 + sqrt(2) z) times it is a Chebyshev fit of degree 16 in
    t = (z - c) / (z + c), even and odd powers apart to shorten the chain of dependent steps.
    """
    y = 1.0 + _ROOT2 * z
    inverse = 1.0 / ((z + _CENTRE) * y)  # one division serves both quotients
    t = (z - _CENTRE) * y * inverse
    t2 = t * t
    even = 9.400467489028102e-07
    even = even * t2 - 1.0112591646697382e-05
    even = even * t2 + 5.039043905237563e-05
    even = even * t2 + 0.0002944262517699341
    even = even * t2 - 0.009746819797582316
    even = even * t2 - 0.058693352739026566
    even = even * t2 - 0.10880393454633691
    even = even * t2 + 0.0035854156488834303
    even = even * t2 + 1.2375126308368274
    odd = -1.0351555938526583e-06
    odd = odd * t2 + 2.2403780863706597e-05
    odd = odd * t2 - 0.0002901358259665391
    odd = odd * t2 + 0.0017556055634321537
    odd = odd * t2 + 0.02836228550792973
    odd = odd * t2 + 0.09230431965625693
    odd = odd * t2 + 0.08227673860880447
    odd = odd * t2 - 0.14024059858819563
    return 0.5 * (even + t * odd) * (z + _CENTRE) * inverse


@kernel
def tail32(z: np.float32) -> np.float32:
    """(1 - Phi(z)) exp(z^2 / 2) in float32: 1 - Phi(z) to 1e-7, relative to 2e-3 in the tail."""
    y = _F(1.0) + _F(_ROOT2) * z
    inverse = _F(1.0) / ((z + _F(3.0)) * y)
    t = (z - _F(3.0)) * y * inverse
    t2 = t * t
    even = _F(0.004869822878390551)
    even = even * t2 - _F(0.03534518927335739)
    even = even * t2 - _F(0.07415224611759186)
    even = even * t2 + _F(0.6370571255683899)
    odd = _F(0.000868104980327189)
    odd = odd * t2 - _F(0.0004663786094170064)
    odd = odd * t2 + _F(0.08300253748893738)
    odd = odd * t2 - _F(0.0509747676551342)
    return (even + t * odd) * (z + _F(3.0)) * inverse


def load_rows(parameters: Parameters, first: int, last: int) -> NDArray[np.float64]:
    """Some rows of the parameters, float64 and contiguous; the other kernels start from it.

    It is the only one compiled for each type and layout that comes in.

    Args:
        parameters: log weights, means, sigmas, each [S, N, K], float32 or float64, of any strides.
        first: first row.
        last: one past the last row.

    Returns:
        Log weight, mean and 1 / sigma, [rows, 3, S * K]. NaN in rows with a mean that is not
        finite, a sigma that is not positive and finite, or a log weight that is NaN or infinity;
        a weight of zero, log weight -inf, counts as exp(-1e4).
    """
    networks, num_rows, components = parameters[0].shape
    last = min(last, num_rows)
    block = np.empty((last - first, 3, networks * components))
    _load_rows(parameters, first, block)
    return block


@kernel
def _load_rows(parameters: Parameters, first: int, block: Vector) -> None:
    # Rows within networks: the other way each step would jump to another page of memory.
    log_weights, means, sigmas = parameters
    networks, _, components = log_weights.shape
    for s in range(networks):
        for i in range(len(block)):
            for k in range(components):
                c = s * components + k
                block[i, 0, c] = log_weights[s, first + i, k]
                block[i, 1, c] = means[s, first + i, k]
                block[i, 2, c] = sigmas[s, first + i, k]
    for i in range(len(block)):
        if not _check(block[i, 0], block[i, 1], block[i, 2]):
            block[i] = np.nan


@kernel
def _check(a: Vector, m: Vector, inverse: Vector) -> bool:
    """Bounds the log weights from below, inverts the sigmas, and tells whether all is usable."""
    faults = 0
    for c in range(a.size):  # comparisons with NaN are false
        is_good = (a[c] < np.inf) & (abs(m[c]) < np.inf)
        faults += 1 - int(is_good & (inverse[c] > 1e-300) & (inverse[c] < np.inf))
    for c in range(a.size):
        inverse[c] = 1.0 / inverse[c]
    for c in range(a.size):
        a[c] = max(a[c], -1e4)
    return faults == 0


@kernel
def take_row(block: Vector, row: int, parts: Parts) -> bool:
    """Copies a row of load_rows into three buffers that may be changed; False if it is bad."""
    for i in range(3):
        parts[i][:] = block[row, i]
    return not np.isnan(block[row, 0, 0])


@kernel
def exponent_inside(a: float, m: float, inverse: float, lower: float, upper: float) -> float:
    """Largest value of a - z^2 / 2 within the bounds."""
    z = max(lower - m, m - upper, 0.0) * inverse
    return a - 0.5 * z * z


@kernel
def cut_row(
    parts: Parts, offsets: tuple[Vector, Vector], lower: float, upper: float
) -> tuple[float, float, float]:
    """Prepares the mass between lower and a point, for mass64 and mass32.

    Log weights are shifted so that the largest value within the bounds is one: nothing underflows
    however far the bounds lie in a tail. Of each component, offsets get what is added to the tail
    function at points below its centre, and from what it is taken above; so tails are subtracted
    from tails and never one from one.

    Returns:
        lower and upper, infinite ones replaced by far points, and the mass between them.
    """
    a, m, inverse = parts
    above, _ = offsets
    top = -np.inf
    for c in range(a.size):
        top = max(top, exponent_inside(a[c], m[c], inverse[c], lower, upper))
    for c in range(a.size):
        a[c] -= top
    _split(parts, offsets, lower)
    start, end = finite_bounds(parts, lower, upper)
    total = above.sum() if upper == np.inf else mass64(parts, offsets, end)[0]
    return start, end, total


@kernel
def _split(parts: Parts, offsets: tuple[Vector, Vector], lower: float) -> None:
    a, m, inverse = parts
    above, below = offsets
    if lower == -np.inf:
        below[:] = 0.0
        for c in range(a.size):
            above[c] = exp64(a[c])
        return
    # One array written per loop: with more, LLVM gives up on proving that none overlaps.
    for c in range(a.size):
        z = (lower - m[c]) * inverse[c]
        below[c] = -tail64(abs(z)) * exp64(a[c] - 0.5 * z * z)
    for c in range(a.size):
        # Factors instead of branches, into which LLVM would move the exponential.
        is_inside = 1.0 if lower < m[c] else 0.0
        above[c] = is_inside * exp64(a[c]) + (2.0 * is_inside - 1.0) * below[c]


@kernel
def finite_bounds(parts: Parts, lower: float, upper: float) -> tuple[float, float]:
    """Bounds with infinite ones replaced by points beyond which no component has any mass."""
    if lower > -np.inf and upper < np.inf:
        return lower, upper
    _, m, inverse = parts
    reach = FAR / inverse.min()
    left, right = m.min() - reach, m.max() + reach
    start = lower if lower > -np.inf else min(left, upper - 1.0)
    end = upper if upper < np.inf else max(right, lower + 1.0)
    return start, end


@summing_kernel
def mass64(parts: Parts, offsets: tuple[Vector, Vector], x: float) -> tuple[float, float, float]:
    """Mass between lower and x, and the density and its slope at x, in the units of cut_row."""
    a, m, inverse = parts
    above, below = offsets
    mass, density, slope = 0.0, 0.0, 0.0
    for c in range(a.size):
        z = (x - m[c]) * inverse[c]
        e = exp64(a[c] - 0.5 * z * z)
        tail = tail64(abs(z)) * e
        mass += above[c] - tail if z > 0.0 else below[c] + tail
        e *= inverse[c]
        density += e
        slope -= z * inverse[c] * e
    return mass, density / SQRT_2PI, slope / SQRT_2PI


@summing_kernel
def mass32(
    parts: Parts32, offsets: tuple[Vector32, Vector32], x: np.float32
) -> tuple[float, float, float]:
    """The same in float32, to 3e-7 of the total weight."""
    a, m, inverse = parts
    above, below = offsets
    mass, density, slope = _F(0.0), _F(0.0), _F(0.0)
    for c in range(a.size):
        z = (x - m[c]) * inverse[c]
        e = exp32(a[c] - _F(0.5) * z * z)
        tail = tail32(abs(z)) * e
        mass += above[c] - tail if z > _F(0.0) else below[c] + tail
        e *= inverse[c]
        density += e
        slope -= z * inverse[c] * e
    return float(mass), float(density) / SQRT_2PI, float(slope) / SQRT_2PI
