"""Branch-free exp, log and Gaussian tails that LLVM turns into vectors, and room for them.

With the exp and erfc of libm the loops over components stay scalar, five to ten times slower. The
exponentials must not be compiled with fastmath's "reassoc": their rounding trick needs (t + c) - c
to be done as it is written.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.arrays import Float32Array, FloatArray
from pipeline.numerics.compiled import kernel

LN10 = math.log(10.0)
ROUGH_LOG = 1e-10  # more than the error of `rough_log`
SQRT_2PI = math.sqrt(2.0 * math.pi)

_F = np.float32
_LN2 = math.log(2.0)
_SMALLEST, _LARGEST = float(np.finfo(np.float64).tiny), float(np.finfo(np.float64).max)
_ROOT_HALF = np.float64(0.5**0.5).view(np.int64)
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
    """exp(x) in float32 to 1e-7 relative; x outside [-87, 87] counts as that bound.

    As `exp64`: 1.5 * 2^23 leaves n in the low bits, ln 2 is taken off in two pieces, of which the
    first has few digits, and a Chebyshev fit for exp(r) with |r| < ln(2) / 2 follows.
    """
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
def rough_log(value: float) -> float:
    """Natural log to 1e-12, without a branch; NaN unless the value is positive and normal.

    With value = 2^n m and m from sqrt(1/2) to sqrt(2), log m = 2 artanh((m - 1) / (m + 1)).
    """
    bits = np.float64(value).view(np.int64)
    n = (bits - _ROOT_HALF) >> np.int64(52)
    m = np.int64(bits - (n << np.int64(52))).view(np.float64)
    s = (m - 1.0) / (m + 1.0)
    x = s * s
    series = 1.0 + x * (
        1 / 3 + x * (1 / 5 + x * (1 / 7 + x * (1 / 9 + x * (1 / 11 + x * (1 / 13 + x / 15)))))
    )
    log = n * _LN2 + 2.0 * s * series
    return log if _SMALLEST <= value <= _LARGEST else np.nan


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
    """(1 - Phi(z)) exp(z^2 / 2) in float32: 1 - Phi(z) to 1e-7, relative to 2e-3 in the tail.

    As `tail64`, for 0 <= z < inf, with c = 3 and a fit of degree 7.
    """
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


@kernel
def centred32(z: np.float32) -> np.float32:
    """Phi(z) - 1/2 in float32 to 4e-7, without an exponential.

    Chebyshev fit in z^2 of (Phi(z) - 1/2) / z up to five sigmas, from where it is constant.
    """
    z = min(max(z, _F(-5.0)), _F(5.0))
    u = _F(0.08) * z * z - _F(1.0)
    p = _F(0.0006087265796496269)
    p = p * u - _F(0.001613264885230551)
    p = p * u + _F(0.001722801568695883)
    p = p * u - _F(0.002685575737040894)
    p = p * u + _F(0.006410508005803584)
    p = p * u - _F(0.01116433862982281)
    p = p * u + _F(0.016402175686286793)
    p = p * u - _F(0.02326865297076281)
    p = p * u + _F(0.031442172053902755)
    p = p * u - _F(0.040442607326398344)
    p = p * u + _F(0.05152052233931529)
    p = p * u - _F(0.07029628062279386)
    p = p * u + _F(0.14136378760876495)
    return p * z


@kernel
def copy_into(values: NDArray[Any], out: NDArray[Any]) -> None:
    """What out[:] = values does, five times as fast."""
    for c in range(out.size):
        out[c] = values[c]


@kernel
def add_components(values: FloatArray, out: FloatArray) -> None:
    """Sums over the components of each network, of which there are as many as sums."""
    copy_into(values, out)
    for first in range(out.size, values.size - out.size + 1, out.size):
        others = values[first : first + out.size]
        for s in range(out.size):
            out[s] += others[s]


@kernel
def aligned(count: int, size: int) -> FloatArray:
    """Room for arrays [count, size] in which none of a vector's loads crosses a cache line.

    Args:
        count: of arrays.
        size: of each, in whole vectors.
    """
    room = np.empty(count * size + 8)
    skipped = (-room.ctypes.data % 64) // 8
    return room[skipped : skipped + count * size].reshape(count, size)


@kernel
def aligned32(count: int, size: int) -> Float32Array:
    """The same as `aligned` for float32."""
    room = np.empty(count * size + 16, _F)
    skipped = (-room.ctypes.data % 64) // 4
    return room[skipped : skipped + count * size].reshape(count, size)
