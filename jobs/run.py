"""Do all stages of a study in order; a stage that is done is kept.

Run: topocal run STUDY.yaml [SITE.yaml ...] [key.path=value ...] [--redo]
Reads the study's inputs (or simulates them); ends with <output>/report/index.html.
"""

import logging
import sys

from jobs import calibrate, evaluate, ingest, report, scaling, simulate, tag, train
from jobs.farm.dask import sharing_farms
from jobs.kernels import compiling_ahead
from jobs.launch import Run, run_job, run_stage
from jobs.study import Study

log = logging.getLogger(__name__)


def main(study: Study, run: Run) -> None:
    """All stages of a study, from its inputs to its report; without inputs they are simulated."""
    # No farm stays open beside a training, which may take hours.
    with sharing_farms():
        if study.simulate is not None and not study.dataset.inputs:
            run_stage("simulate", simulate.main, study, run)
        run_stage("ingest", ingest.main, study, run)
        if not study.dataset.every_target:
            run_stage("calibrate", calibrate.main, study, run)
            log.info("run: without truth there is nothing to train, evaluate or report")
            return
    if study.tag is not None:
        run_stage("tag", tag.main, study, run)
    if study.models:
        with compiling_ahead():
            run_stage("train", train.main, study, run)
    if study.scaling is not None:
        run_stage("scaling", scaling.main, study, run)
    with sharing_farms():
        run_stage("calibrate", calibrate.main, study, run)
        run_stage("evaluate", evaluate.main, study, run)
    run_stage("report", report.main, study, run)


if __name__ == "__main__":
    sys.exit(run_job("run", main, sys.argv[1:]))
