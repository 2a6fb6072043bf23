"""The kernels that calibrate needs, compiled beside the training of a first run.

Run: python -m jobs.kernels
On one core they take one to two minutes, once after an installation or an update; a training of one
worker leaves the other cores idle.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pipeline.densities.gaussian_mixture.crps import crps_of
from pipeline.densities.gaussian_mixture.functionals import summarise
from pipeline.densities.gaussian_mixture.network_outputs import NetworkOutputs
from pipeline.numerics.compiled import has_kernels
from pipeline.simulators.known_density.density import OracleDensity
from pipeline.simulators.known_density.features import FEATURES
from pipeline.simulators.known_density.response import RESPONSE
from pipeline.simulators.known_density.sample import draw_clusters
from pipeline.simulators.known_density.settings import GeneratorSettings

GROUP = "densities"
ROWS = 64
COMMAND = ("-m", "jobs.kernels")


@contextmanager
def compiling_ahead() -> Iterator[None]:
    """Within the block another process compiles the kernels, if they are not there already."""
    if has_kernels(GROUP):
        yield
        return
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, *COMMAND]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield
            process.wait()  # whoever compiles them then takes as long
        finally:
            process.terminate()


def compile_kernels() -> None:
    """Compute all that calibrate does of some rows of networks and of the exact density."""
    rng, settings = np.random.default_rng(1), GeneratorSettings()
    outputs = rng.normal(size=(2, 9, ROWS)).astype(np.float32)
    oracle = OracleDensity(settings, FEATURES, RESPONSE[0], (settings.min_deposit_gev, None))
    exact = oracle.of_rows(draw_clusters(settings, rng, ROWS))
    for densities in (NetworkOutputs(outputs, (-14.0, 0.0)), exact):
        points = np.zeros(ROWS)
        summarise(densities, -2.0, 2.0, points=points)
        rows = np.arange(0, ROWS, 2)
        crps_of(densities.of_rows(rows), points[rows])


if __name__ == "__main__":
    if hasattr(os, "nice") and Path("/proc").is_dir():
        os.nice(10)
    compile_kernels()
