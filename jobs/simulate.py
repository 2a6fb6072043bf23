"""Write simulated clusters with a known response density to ROOT files.

Run: topocal simulate STUDY.yaml
Reads nothing; writes <output>/simulated/clusters-*.root and sample.json.
"""

import logging
import sys
from pathlib import Path

from jobs.farm import open_farm
from jobs.launch import Run, run_job
from jobs.study import Study
from pipeline.fold import map_parts
from pipeline.formats.errors import UserError
from pipeline.formats.files import clear_output
from pipeline.formats.fingerprint import fingerprint
from pipeline.simulate import SAMPLE, SimulatedSample, plan_files, write_file

log = logging.getLogger(__name__)

VERSION = 1  # raised when the same settings give other clusters


def sample_folder(study: Study) -> Path:
    """Where the simulated files of a study are."""
    return study.folder / "simulated"


def simulated_inputs(study: Study) -> list[str]:
    """The simulated files of a study, in order.

    Raises:
        UserError: They have not been made.
    """
    folder = sample_folder(study)
    sample = SimulatedSample.load(folder / SAMPLE, made_by="simulate")
    return [str(folder / file.path) for file in sample.files]


def main(study: Study, run: Run) -> None:
    """Write the sample that the study's section `simulate` describes."""
    if study.simulate is None:
        msg = "the study has no section simulate; add one, or name real files in dataset.inputs"
        raise UserError(msg)
    folder = sample_folder(study)
    wanted = fingerprint(
        stage="simulate",
        version=VERSION,
        settings=study.simulate,
        seed=study.seed,
        tree=study.dataset.tree,
    )
    if run.keeps("simulate", folder, _found(folder), wanted):
        return
    clear_output(folder, SAMPLE)
    plans = plan_files(study.simulate, folder=folder, seed=study.seed, tree=study.dataset.tree)
    with open_farm(study.dask) as client:
        files = map_parts(client, write_file, plans, label="simulate")
    SimulatedSample(fingerprint=wanted, files=tuple(files)).save(folder / SAMPLE)
    run.counts["simulated_clusters"] = study.simulate.num_clusters
    log.info("simulate: %d clusters in %d files", study.simulate.num_clusters, len(files))


def _found(folder: Path) -> str | None:
    if not (folder / SAMPLE).exists():
        return None
    return SimulatedSample.load(folder / SAMPLE, made_by="simulate").fingerprint


if __name__ == "__main__":
    sys.exit(run_job("simulate", main, sys.argv[1:]))
