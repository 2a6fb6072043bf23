"""The LCW branches of a simulated sample, from a look-up table of an independent sample.

A real sample's cluster_EM_PROBABILITY and cluster_HAD_WEIGHT come from such tables as well, which
were made once and know nothing of the sample that they are applied to. Nothing is drawn here, so
that no other branch depends on it. pipeline/simulators/known_density/fit_lcw.py makes the table.
"""

import functools
from pathlib import Path

import numpy as np

from pipeline.lookup.tables import Tables, read_tables
from pipeline.numerics.arrays import Columns

LCW_TABLES = Path(__file__).with_name("lcw.parquet")


def lcw_columns(features: Columns) -> Columns:
    """cluster_EM_PROBABILITY P and cluster_HAD_WEIGHT P + (1 - P) w of N clusters, float32."""
    probability, weight = _tables().probability_and_weight(features)
    return {
        "cluster_EM_PROBABILITY": probability.astype(np.float32),
        "cluster_HAD_WEIGHT": (probability + (1.0 - probability) * weight).astype(np.float32),
    }


@functools.cache
def _tables() -> Tables:
    return read_tables(LCW_TABLES)
