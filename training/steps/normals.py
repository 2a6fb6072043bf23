"""Standard normal numbers as a function of a key and a counter: no state, any order, any slice.

A counter is hashed to 32 bits with both halves of the key between three rounds of mixing (the
constants are those that Wellons' search found to have the least bias), two hashes become two
normal numbers (Box and Muller). The formulas take single numbers, compiled, and NumPy arrays
alike; each operation rounds to float32 as written, so that both give the same bits.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.steps.compiled import element, kernel

Vector32 = NDArray[np.float32]
NoiseKey = tuple[np.uint32, np.uint32]

_U, _F, _I = np.uint32, np.float32, np.int32
_LOW_31 = 2.0**-33  # what turns 32 bits with sign into turns between -1/4 and 1/4


@element
def _hash(x: Any, key: Any) -> Any:  # noqa: ANN401 - numbers or arrays
    x = _U(_U(x * _U(0x9E3779B1)) + key[0])
    x = _U((x ^ _U(x >> _U(16))) * _U(0x21F0AAAD))
    x = _U((x ^ _U(x >> _U(15))) * _U(0xD35A2D97))
    x = _U(_U(x ^ _U(x >> _U(15))) + key[1])
    x = _U((x ^ _U(x >> _U(16))) * _U(0x7FEB352D))
    x = _U((x ^ _U(x >> _U(15))) * _U(0x846CA68B))
    return _U(x ^ _U(x >> _U(16)))


@element
def _radius(bits: Any) -> Any:  # noqa: ANN401 - numbers or arrays
    """sqrt(-2 ln u) for u = (bits / 2^8 + 1/2) / 2^24: from 0 to 5.9, to 2e-7 relative.

    u = 2^n (1 + f) with 1 + f between sqrt(1/2) and sqrt(2); a fit of degree 8 for ln(1 + f).
    """
    u = _F((_F(_I(bits >> _U(8))) + _F(0.5)) * _F(2.0**-24))
    n = _I(_I(u.view(_I) - _I(0x3F3504F3)) >> _I(23))
    f = _I(u.view(_I) - _I(n << _I(23))).view(_F) - _F(1.0)
    p = _F(0.07149752974510193)
    p = p * f + _F(-0.115712009370327)
    p = p * f + _F(0.11661511659622192)
    p = p * f + _F(-0.12411050498485565)
    p = p * f + _F(0.14249935746192932)
    p = p * f + _F(-0.1666848063468933)
    p = p * f + _F(0.20000708103179932)
    p = p * f + _F(-0.24999989569187164)
    p = p * f + _F(0.3333333134651184)
    logarithm = (p * f - _F(0.5)) * (f * f) + f
    logarithm = logarithm + _F(n) * _F(0.6931471805599453)
    return np.sqrt(_F(-2.0) * logarithm)


@element
def _direction(bits: Any) -> Any:  # noqa: ANN401 - numbers or arrays
    """Cosine and sine of a uniform angle, to 2e-7.

    All bits but the highest make an angle of the right half circle, the highest mirrors it; fits
    of degree 10 and 9.
    """
    turn = _F(_I(_U(bits << _U(1)))) * _F(_LOW_31)
    z = turn * turn
    p = _F(-24.981836318969727)
    p = p * z + _F(60.143951416015625)
    p = p * z + _F(-85.45356750488281)
    p = p * z + _F(64.93934631347656)
    p = p * z + _F(-19.739208221435547)
    p = p * z + _F(1.0)
    q = _F(39.76072311401367)
    q = q * z + _F(-76.58128356933594)
    q = q * z + _F(81.60247802734375)
    q = q * z + _F(-41.34168243408203)
    q = q * z + _F(6.2831854820251465)
    mirrored = _I(_F(p).view(_I) ^ _I(_U(bits & _U(0x80000000)))).view(_F)
    return mirrored, turn * q


@element
def normal_pair(counter: Any, key: Any) -> Any:  # noqa: ANN401 - numbers or arrays
    """Two independent standard normal numbers of a counter (uint32) and a key."""
    twice = _U(counter * _U(2))
    radius = _radius(_hash(twice, key))
    across, along = _direction(_hash(_U(twice + _U(1)), key))
    return radius * across, radius * along


@kernel
def _fill(out: Vector32, key: NoiseKey, first: np.uint32, half: int) -> None:
    both = max(out.size - half, 0)
    above = out[half:]
    for i in range(both):
        one, other = normal_pair(_U(first + _U(i)), key)
        out[i] = one
        above[i] = other
    for i in range(both, min(half, out.size)):
        out[i] = normal_pair(_U(first + _U(i)), key)[0]


def fill_normals(out: Vector32, key: NoiseKey, first: int, half: int) -> None:
    """Fill a vector from the counters first, first + 1, ... of a key.

    Numbers i and half + i come from counter first + i, so a vector that ends earlier has the same
    numbers as far as it goes.

    Args:
        out: At most 2 half numbers.
        key: Two halves of 32 bits.
        first: Counter; more than 32 bits start again at 0.
        half: Counters.
    """
    _fill(out, key, _U(first & 0xFFFFFFFF), half)


def normals_on_device(counter: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """normal_pair in torch's functions, equal to it to rounding.

    Args:
        counter: int32, any shape.
        key: int32 [2], both halves.
    """
    twice = counter * 2
    # the upper 24 bits, without the sign that a shift of int32 drags in
    upper = (_hash_on_device(twice, key) >> 8) & 0xFFFFFF
    radius = ((upper.float() + 0.5) * 2.0**-24).log().mul_(-2.0).sqrt_()
    bits = _hash_on_device(twice + 1, key)
    angle = (bits << 1).float() * (2.0 * math.pi * _LOW_31)
    mirror = torch.where(bits < 0, -1.0, 1.0)
    return radius * angle.cos() * mirror, radius * angle.sin()


def _hash_on_device(x: Tensor, key: Tensor) -> Tensor:
    x = x * _signed(0x9E3779B1) + key[0]
    x = (x ^ _shift(x, 16)) * _signed(0x21F0AAAD)
    x = (x ^ _shift(x, 15)) * _signed(0xD35A2D97)
    x = (x ^ _shift(x, 15)) + key[1]
    x = (x ^ _shift(x, 16)) * _signed(0x7FEB352D)
    x = (x ^ _shift(x, 15)) * _signed(0x846CA68B)
    return x ^ _shift(x, 16)


def _shift(x: Tensor, places: int) -> Tensor:
    return (x >> places) & ((1 << (32 - places)) - 1)


def _signed(bits: int) -> int:
    return bits - (1 << 32) if bits >> 31 else bits
