"""The functionals of any family where tails fall by a small power: a Student t against scipy."""

import numpy as np
import pytest
from scipy.stats import t as student

from pipeline.densities.generic import NetworkDensities, summarise

SCALE = 0.1


class StudentT(NetworkDensities):
    """Location and degrees of freedom [S, 2, N], of one scale."""

    __slots__ = ()

    def _exact(self):
        location, freedom = self.outputs_SPN.astype(np.float64).swapaxes(0, 1)
        return student(freedom[:, :, None], location[:, :, None], SCALE)

    def log_density(self, points_NG):
        return self._exact().logpdf(points_NG)

    def knots(self):
        levels = [1e-10, 1e-6, 1e-3, 0.16, 0.5, 0.84, 1 - 1e-3, 1 - 1e-6, 1 - 1e-10]
        return np.concatenate(self._exact().ppf(levels))


@pytest.mark.parametrize(
    ("freedom", "allowed"), [(2.4, 2e-4), (4.7, 2e-5), (150.0, 2e-5)], ids="{}".format
)
def test_density_and_quantiles_of_a_student_t(freedom, allowed):
    location = np.linspace(-0.3, 0.4, 6)
    outputs = np.stack([location, np.full(6, freedom)])[None].astype(np.float32)
    at = location + SCALE * np.array([-3.0, -1.0, -0.1, 0.5, 2.0, 20.0])
    found = summarise(StudentT(outputs, (-14.0, 0.0)), -9.0, 9.0, points=at)
    exact = student(np.float32(freedom), outputs[0, 0].astype(np.float64), SCALE)
    np.testing.assert_allclose(found["log_density"], exact.logpdf(at), atol=allowed)
    np.testing.assert_allclose(found["pit"], exact.cdf(at), atol=allowed)
    for name, level in (("q025", 0.025), ("q16", 0.16), ("median", 0.5), ("q975", 0.975)):
        l_N = np.log10(found[name])
        np.testing.assert_allclose(l_N, exact.ppf(level), atol=30 * allowed * SCALE, err_msg=name)
