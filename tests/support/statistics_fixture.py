"""Statistics of a column at hand, as ingest would keep them."""

import numpy as np

from pipeline.formats.transforms import ColumnStatistics


def statistics_of(values: np.ndarray) -> ColumnStatistics:
    wide = values.astype(np.float64)
    log = np.log10(wide) if (wide > 0).all() else None
    return ColumnStatistics(
        count=len(wide),
        sum_of_weights=len(wide),
        mean=wide.mean(),
        std=wide.std(),
        minimum=wide.min(),
        maximum=wide.max(),
        max_abs=np.abs(wide).max(),
        log10_mean=None if log is None else log.mean(),
        log10_std=None if log is None else log.std(),
    )
