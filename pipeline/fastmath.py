"""Branch-free exp, log and Gaussian tails that LLVM turns into vectors, and row loading.

With the exp and erfc of libm the loops over components stay scalar, five to ten times slower. The
exponentials must not be compiled with fastmath's "reassoc": their rounding trick needs (t + c) - c
to be done as it is written.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.compiled import kernel

Vector = NDArray[np.float64]
Vector32 = NDArray[np.float32]
Parts = tuple[Vector, Vector, Vector]  # log weights, means, 1 / sigma of the components of a row
Row = tuple[Vector, Vector, Vector, Vector, Vector]  # of load_rows
Parts32 = tuple[Vector32, Vector32, Vector32]
Parameters = tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]

LN10 = math.log(10.0)
ROUGH_LOG = 1e-10  # more than the error of `rough_log`
SQRT_2PI = math.sqrt(2.0 * math.pi)

_F = np.float32
_LN2 = math.log(2.0)
_SMALLEST, _LARGEST = float(np.finfo(np.float64).tiny), float(np.finfo(np.float64).max)
_ROOT_HALF = np.float64(0.5**0.5).view(np.int64)
_CENTRE = 3.75 * math.sqrt(2.0)  # the map (z - c) / (z + c) brings [0, inf) to [-1, 1)
_ROOT2 = math.sqrt(2.0)
_LANES = 32  # components of a row are a multiple: four vectors of float64, two of float32
LOWEST32 = np.int32(-0x7FFFFFFF)  # keys below those of all finite numbers
LOWEST64 = np.int64(-0x7FFFFFFFFFFFFFFF)
_FAINTEST = -1e4  # log weight of a component without weight
_ABSENT = -1e300  # log weight of the components that fill up a row


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
def key32(x: np.float32) -> np.int32:
    """An integer in the order of the numbers: of integers LLVM takes the largest by vectors."""
    bits = np.float32(x).view(np.int32)
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@kernel
def value32(key: np.int32) -> np.float32:
    """The number of a key."""
    return np.int32(key ^ ((key >> np.int32(31)) & np.int32(0x7FFFFFFF))).view(np.float32)


@kernel
def key64(x: float) -> np.int64:
    """The same in float64."""
    bits = np.float64(x).view(np.int64)
    return np.int64(bits ^ ((bits >> np.int64(63)) & np.int64(0x7FFFFFFFFFFFFFFF)))


@kernel
def value64(key: np.int64) -> float:
    """The number of a key."""
    bits = np.int64(key ^ ((key >> np.int64(63)) & np.int64(0x7FFFFFFFFFFFFFFF)))
    return bits.view(np.float64)


@kernel
def copy_into(values: NDArray[Any], out: NDArray[Any]) -> None:
    """What out[:] = values does, five times as fast."""
    for c in range(out.size):
        out[c] = values[c]


def load_rows(
    parameters: Parameters, first: int, last: int, room: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Some rows of the parameters, float64 and contiguous; the other kernels start from it.

    It is the only one compiled for each type and layout that comes in.

    Args:
        parameters: log weights, means, sigmas, each [S, N, K], float32 or float64, of any strides.
        first: first row.
        last: one past the last row.
        room: for the answer, as from empty_rows.

    Returns:
        Log weight, mean, 1 / sigma, sigma and weight, [rows, 5, C]: the first components of all
        networks, the second ones, and so on, then components without weight up to whole vectors.
        NaN in rows with a mean that is not finite, a sigma that is not positive and finite, or a
        log weight that is NaN or infinity; a weight of zero, log weight -inf, counts as exp(-1e4).
    """
    last = max(first, min(last, parameters[0].shape[1]))
    block = (empty_rows(parameters, last - first) if room is None else room)[: last - first]
    _load_rows(parameters, first, block)
    return block


def empty_rows(parameters: Parameters, rows: int) -> NDArray[np.float64]:
    """Room for so many rows of load_rows; taken once, since fresh memory is slow to write to."""
    networks, _, components = parameters[0].shape
    return np.empty((rows, 5, -(-networks * components // _LANES) * _LANES))


@kernel
def _load_rows(parameters: Parameters, first: int, block: Vector) -> None:
    log_weights, means, sigmas = parameters
    networks, _, components = log_weights.shape
    for s in range(networks):  # rows within networks: memory is read in the order in which it lies
        for i in range(len(block)):
            for k in range(components):
                c = k * networks + s
                block[i, 0, c] = max(log_weights[s, first + i, k], _FAINTEST)
                block[i, 1, c] = means[s, first + i, k]
                block[i, 3, c] = sigmas[s, first + i, k]
    used = networks * components
    for i in range(len(block)):
        row = block[i]
        row[0, used:] = _ABSENT
        row[1, used:] = row[1, 0]
        row[3, used:] = row[3, 0]
        if not _complete(row[0], row[1], row[2], row[3], row[4]):
            block[i] = np.nan


@kernel
def _complete(a: Vector, m: Vector, inverse: Vector, sigma: Vector, weight: Vector) -> bool:
    """Adds what follows from the parameters, and tells whether all are usable."""
    faults = 0
    for c in range(a.size):  # comparisons with NaN are false
        is_good = (a[c] < np.inf) & (abs(m[c]) < np.inf)
        faults += 1 - int(is_good & (sigma[c] > 1e-300) & (sigma[c] < np.inf))
    for c in range(a.size):
        inverse[c] = 1.0 / sigma[c]
    for c in range(a.size):
        weight[c] = exp64(a[c])
    return faults == 0
