"""A scaling study of small trainings on two cores against their training steps alone."""

import time

from jobs import scaling
from jobs.launch import Run
from jobs.sites import RaySettings
from jobs.study import Study
from pipeline.training_size.points import POINT, PointRecord
from pipeline.training_size.settings import LadderSettings, ScalingSettings

WORKERS, SEEDS, STEPS = 2, 4, 3_000
SIZES = (1_000, 3_162, 10_000, 31_623)


def measure_overhead(study: Study) -> dict[str, float]:
    """Seconds of the whole job over those of the updates of its trainings, shared by two cores.

    Everything counts: the subsets, Ray's start, reading, validation, judging the test rows, the
    tables. Once: sixteen trainings take a minute and are their own repeats.
    """
    ladder = LadderSettings(model="bnn", budget="steps", steps=STEPS, seeds=SEEDS)
    small = study.model_copy(
        update={
            "scaling": ScalingSettings(ladders={"bnn": ladder}, sizes=SIZES),
            "ray": RaySettings(workers=WORKERS),
        }
    )
    start = time.perf_counter()
    scaling.main(small, Run())
    seconds = time.perf_counter() - start
    places = (scaling.scaling_folder(small) / "trainings").rglob(POINT)
    steps = [PointRecord.load(place, made_by="scaling").step_seconds for place in places]
    assert len(steps) == len(SIZES) * SEEDS
    return {
        "scaling.overhead": seconds / (sum(steps) / WORKERS),
        "scaling.trainings_per_minute": 60.0 * len(steps) / seconds,
    }
