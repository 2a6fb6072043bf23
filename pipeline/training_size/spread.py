"""Is sigma_stat a statistical uncertainty? The predicted spread of networks beside the real one.

Two real spreads: over fresh samples of the same size, each with its own seed, which is what a
statistical uncertainty has to cover; and over seeds on one sample, the part that the training
alone makes. Both are of a single network, since sigma_stat (Eq. 42) is the spread of single
networks. With S networks in each training, and the mean m_r and the spread s_r over those of
training r, the variance of a single network is Var_r(m_r) + mean_r(s_r^2), which needs no choice
of a network.

Rows are compared in tenths of equal size by their predicted spread: within a tenth variances are
averaged, so that few trainings make the result uncertain but do not bias it.

Shape letters: R trainings, N test rows, T tenths.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.calibrators.protocol import Columns
from pipeline.training_size.points import MEANS

Values = NDArray[np.float64]
TENTHS = 10
FEWEST = 2  # trainings that have a spread
FEWEST_FOR_ERROR = 3


@dataclass(frozen=True)
class Spread:
    """Predicted and real spread of a single network.

    Attributes:
        trainings: From which the real one is.
        predicted_T: Root of the mean predicted variance in each tenth of the rows.
        real_T: Root of the mean real variance of a single network.
        average_T: The same of the average over a training's networks, the central value.
    """

    trainings: int
    predicted_T: Values
    real_T: Values
    average_T: Values

    @property
    def ratio(self) -> float:
        """Predicted over real, the median of the tenths."""
        return float(np.median(self.predicted_T / self.real_T))

    @property
    def real(self) -> float:
        """The real spread of a single network, the median of the tenths."""
        return float(np.median(self.real_T))

    @property
    def average(self) -> float:
        """The real spread of the average over networks, the median of the tenths."""
        return float(np.median(self.average_T))


def compare(predicted: Sequence[Columns], singles: Sequence[Columns], suffix: str) -> Spread | None:
    """The predicted spread beside the real one; None of fewer than two trainings.

    Args:
        predicted: The test rows of the trainings whose sigma_stat is in question.
        singles: Those of the trainings over which the real spread is taken.
        suffix: "" for R, "_log10" for log10 R.
    """
    if len(singles) < FEWEST:
        return None
    stat = f"sigma_stat{suffix}"
    predicted_N = np.mean([rows[stat].astype(np.float64) ** 2 for rows in predicted], axis=0)
    mean_RN = np.array([rows[MEANS[suffix]] for rows in singles], np.float64)
    within_N = np.mean([rows[stat].astype(np.float64) ** 2 for rows in singles], axis=0)
    average_N = mean_RN.var(axis=0, ddof=1)
    known = np.isfinite(predicted_N) & np.isfinite(average_N) & np.isfinite(within_N)
    tenths = np.array_split(np.argsort(predicted_N[known], kind="stable"), TENTHS)
    columns = (predicted_N, average_N + within_N, average_N)
    roots = [np.array([np.sqrt(c[known][rows].mean()) for rows in tenths]) for c in columns]
    return Spread(len(singles), *roots)


def errors_of(
    predicted: Sequence[Columns], singles: Sequence[Columns], suffix: str
) -> dict[str, float]:
    """Jackknife errors of the figures of a spread, leaving out one training at a time.

    None for fewer than three trainings.
    """
    count = len(singles)
    if count < FEWEST_FOR_ERROR:
        return {}
    without = [
        compare(predicted, [*singles[:left_out], *singles[left_out + 1 :]], suffix)
        for left_out in range(count)
    ]
    figures = {
        name: np.array([getattr(each, name) for each in without])
        for name in ("ratio", "real", "average")
    }
    return {name: float(np.sqrt((count - 1) * v.var())) for name, v in figures.items()}
