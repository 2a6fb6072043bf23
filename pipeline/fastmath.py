"""Branch-free exp and Gaussian tails that LLVM turns into vector instructions, and row loading.

With the exp and erfc of libm the loops over components stay scalar, five to ten times slower. No
function here may be given fastmath's "reassoc": the rounding trick of the exponentials needs
(t + c) - c to be done as it is written. Numba's cache does not see a change in an imported file:
after editing this one, remove the __pycache__ of the package.
"""

import math

import numpy as np
from numba import njit

LN10 = math.log(10.0)
SQRT_2PI = math.sqrt(2.0 * math.pi)
FAR = 40.0  # sigmas from the centre at which a Gaussian is zero in float64

SUMS = {"reassoc", "contract", "nsz", "nnan"}  # fastmath of loops that reduce; NaN is kept out
_F = np.float32
_CENTRE = 3.75 * math.sqrt(2.0)  # the map (z - c) / (z + c) brings [0, inf) to [-1, 1)
_ROOT2 = math.sqrt(2.0)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def exp64(x):  # type: ignore[no-untyped-def]  # numba infers the types
    """exp(x) to 1e-15 relative; x outside [-708, 700] counts as that bound.

    exp(x) = 2^n exp(r) with |r| < ln(2) / 2: adding 1.5 * 2^52 leaves n in the low bits, which
    become the exponent; Chebyshev fit of degree 10 for exp(r).
    """
    x = x if x > -708.0 else -708.0  # not max(), which minds NaN
    x = x if x < 700.0 else 700.0
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


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def exp32(x):  # type: ignore[no-untyped-def]
    """exp(x) in float32 to 1e-7 relative; x outside [-87, 87] counts as that bound."""
    x = x if x > _F(-87.0) else _F(-87.0)
    x = x if x < _F(87.0) else _F(87.0)
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


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def tail64(z):  # type: ignore[no-untyped-def]
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


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def tail32(z):  # type: ignore[no-untyped-def]
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


@njit(cache=True, nogil=True, error_model="numpy")
def load_row(source, row, parts):  # type: ignore[no-untyped-def]
    """Copies one row of the three [S, N, K] arrays into float64 buffers of S * K components.

    Args:
        source: log weights, means, sigmas as they came, float32 or float64.
        row: which row.
        parts: buffers [S * K] that become log weights, means and 1 / sigma.

    Returns:
        Whether every parameter was usable: finite means, positive finite sigmas, weights below
        infinity (a weight of zero, log weight -inf, counts as exp(-1e4)).
    """
    (log_weights, means, sigmas), (a, m, inverse) = source, parts
    networks, _, components = log_weights.shape
    for s in range(networks):
        for k in range(components):
            c = s * components + k
            a[c] = log_weights[s, row, k]
            m[c] = means[s, row, k]
            inverse[c] = sigmas[s, row, k]
    return _check(a, m, inverse)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _check(a, m, inverse):  # type: ignore[no-untyped-def]
    """Bounds the log weights from below, inverts the sigmas, and tells whether all is usable."""
    faults = 0
    for c in range(a.size):
        a[c] = -1e4 if a[c] < -1e4 else a[c]
        inverse[c] = 1.0 / inverse[c]
        # x - x is NaN where x is infinite or NaN
        is_good = a[c] - a[c] + (m[c] - m[c]) + (inverse[c] - inverse[c]) == 0.0
        faults += 0 if is_good and inverse[c] > 0.0 else 1
    return faults == 0


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SUMS)
def exponent_inside(a, m, inverse, lower, upper):  # type: ignore[no-untyped-def]
    """Largest value of a - z^2 / 2 within the bounds."""
    # Conditional expressions and not max(): that one minds NaN and stays scalar in a loop.
    below, above = lower - m, m - upper
    distance = below if below > above else above
    distance = distance if distance > 0.0 else 0.0
    return a - 0.5 * (distance * inverse) * (distance * inverse)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SUMS)
def cut_row(parts, offsets, lower, upper):  # type: ignore[no-untyped-def]
    """Prepares the mass between lower and a point, for mass64 and mass32.

    Log weights are shifted so that the largest value within the bounds is one: nothing underflows
    however far the bounds lie in a tail. Of each component, offsets get what is added to the tail
    function at points below its centre, and from what it is taken above; so tails are subtracted
    from tails and never one from one.

    Returns:
        lower and upper, infinite ones replaced by far points, and the mass between them.
    """
    a, m, inverse = parts
    above, below = offsets
    top = -np.inf
    for c in range(a.size):
        exponent = exponent_inside(a[c], m[c], inverse[c], lower, upper)
        top = exponent if exponent > top else top
    lower, upper = finite_bounds(parts, lower, upper)
    for c in range(a.size):
        a[c] -= top
    # One array written per loop: with more, LLVM gives up on proving that none overlaps.
    for c in range(a.size):
        z = (lower - m[c]) * inverse[c]
        below[c] = -tail64(abs(z)) * exp64(a[c] - 0.5 * z * z)
    for c in range(a.size):
        # Factors instead of branches, into which LLVM would move the exponential.
        is_inside = 1.0 if lower < m[c] else 0.0
        above[c] = is_inside * exp64(a[c]) + (2.0 * is_inside - 1.0) * below[c]
    return lower, upper, mass64(parts, offsets, upper)[0]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SUMS)
def finite_bounds(parts, lower, upper):  # type: ignore[no-untyped-def]
    """Bounds with infinite ones replaced by points beyond which no component has any mass."""
    if lower > -np.inf and upper < np.inf:  # no isfinite: SUMS lets the compiler drop its NaN test
        return lower, upper
    _, m, inverse = parts
    left, right = np.inf, -np.inf
    for c in range(m.size):
        start, end = m[c] - FAR / inverse[c], m[c] + FAR / inverse[c]
        left = start if start < left else left
        right = end if end > right else right
    start = lower if lower > -np.inf else min(left, upper - 1.0)
    end = upper if upper < np.inf else max(right, lower + 1.0)
    return start, end


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SUMS)
def mass64(parts, offsets, x):  # type: ignore[no-untyped-def]
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


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SUMS)
def mass32(parts, offsets, x):  # type: ignore[no-untyped-def]
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
    return mass, density / SQRT_2PI, slope / SQRT_2PI
