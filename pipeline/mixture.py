"""Gaussian mixtures of l = log10 of the target, one per row and network, and what follows from them.

Everything here is float64 NumPy that states the definitions; pipeline/functionals.py is the fast twin.

Shapes: S networks (weight samples or members), N rows, K components.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Mixtures:
    """Per row, the average over S networks of K Gaussians in l, cut to [lower, upper] and renormalised.

    Attributes:
        log_weights: [S, N, K], normalised over K for each network and row.
        means: [S, N, K], in l.
        sigmas: [S, N, K], in l, positive.
        lower: [N], in l; -inf where nothing is cut off.
        upper: [N], in l; +inf where nothing is cut off.
    """

    log_weights: Floats
    means: Floats
    sigmas: Floats
    lower: Floats
    upper: Floats
