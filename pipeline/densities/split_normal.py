"""The split normal density of l = log10 of the target: two half Gaussians about one mode.

f(l) = sqrt(2 / pi) / (s1 + s2) exp(-z^2 / 2), z = (l - m) / s1 below the mode m and (l - m) / s2
above it. It integrates to one and is continuous; below m lies s1 / (s1 + s2) of it. The widths on
both sides under one normalisation are what makes m the mode: with each side normalised by itself
m would be the median (Fechner 1897; Johnson, Kotz, Balakrishnan, vol. 1, ch. 10.2).

Shape letters: S networks, N rows, G points.
"""

import math

import numpy as np

from pipeline.densities.generic import NetworkDensities
from pipeline.numerics.arrays import FloatArray

STEPS = (-6.5, -3.0, -1.5, -0.7, 0.0, 0.7, 1.5, 3.0, 6.5)  # widths; 1e-10 lies beyond the last
LOG_SQRT_2_OVER_PI = 0.5 * math.log(2.0 / math.pi)


class SplitNormals(NetworkDensities):
    """Split normals of l as networks give them; their average over S networks is a row's.

    The outputs [S, 3, N] are mode, natural log of the variance below it, and of that above it.
    """

    __slots__ = ()

    def log_density(self, points_NG: FloatArray) -> FloatArray:
        """Natural log of each network's density of l, [S, N, G]."""
        mode_SN, low_SN, high_SN = self._parameters()
        offset_SNG = points_NG - mode_SN[:, :, None]
        side_SNG = np.where(offset_SNG < 0.0, low_SN[:, :, None], high_SN[:, :, None])
        width_SN1 = np.log(low_SN + high_SN)[:, :, None]
        return -0.5 * (offset_SNG / side_SNG) ** 2 - width_SN1 + LOG_SQRT_2_OVER_PI

    def knots(self) -> FloatArray:
        """Values of l, [N, 9 S], at each network's mode and up to where its density ends."""
        mode_SN, low_SN, high_SN = self._parameters()
        knots = [mode_SN + step * (low_SN if step < 0.0 else high_SN) for step in STEPS]
        return np.concatenate(knots).T

    def _parameters(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Mode and widths below and above it, each [S, N]."""
        mode_SN, *log_variances = (
            part.astype(np.float64) for part in self.outputs_SPN.swapaxes(0, 1)
        )
        low_SN, high_SN = (
            np.exp(0.5 * np.clip(each, *self.log_variance_bounds)) for each in log_variances
        )
        return mode_SN, low_SN, high_SN
