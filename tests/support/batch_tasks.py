"""Tasks that the tests let jobs of a farm run; importable there."""

import os
import time


def calibrate_slowly(plan):
    """So slowly that a job can be cancelled in the middle."""
    from pipeline.calibrators.calibrate import (
        calibrate_part,  # the other task starts without its seconds
    )

    time.sleep(3.0)
    return calibrate_part(plan)


def sleep_and_name_job(seconds):
    """What the job that ran it has alone: its number in SLURM, its folder in HTCondor."""
    time.sleep(seconds)
    return os.environ.get("SLURM_JOB_ID") or os.environ["_CONDOR_SCRATCH_DIR"]
