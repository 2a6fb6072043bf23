"""Write simulated clusters with a known response density to ROOT files.

Run: topocal simulate STUDY.yaml
Reads nothing; writes <output>/simulated/clusters-*.root and sample.json.
"""

import logging
import sys
from pathlib import Path

from jobs.farm.dask import open_farm
from jobs.launch import Run, run_job
from jobs.study import Study
from pipeline.fold import map_parts
from pipeline.formats.errors import UserError
from pipeline.formats.files import sha256_of
from pipeline.formats.folders import replacing_folder
from pipeline.formats.versions import fingerprint
from pipeline.simulators.registry import SIMULATORS
from pipeline.simulators.sample_files import SAMPLE, SimulatedSample, plan_files, write_file
from pipeline.simulators.settings import SampleSettings

log = logging.getLogger(__name__)


def sample_folder(study: Study) -> Path:
    """Where the simulated files of a study are."""
    return study.folder / "simulated"


def simulated_inputs(study: Study) -> list[str]:
    """The simulated files of a study, in order.

    Raises:
        UserError: They have not been made, or not with the study's settings.
    """
    folder = sample_folder(study)
    sample = SimulatedSample.load(folder / SAMPLE, made_by="simulate")
    if study.simulate is not None and sample.fingerprint != _fingerprint(study, study.simulate):
        msg = f"{folder}: made with other settings; run `topocal simulate` again"
        raise UserError(msg)
    sample.require_files(folder, made_by="simulate")
    return [str(folder / part.path) for part in sample.parts]


def main(study: Study, run: Run) -> None:
    """Write the sample that the study's section `simulate` describes."""
    if study.simulate is None:
        msg = "the study has no section simulate; add one, or name real files in dataset.inputs"
        raise UserError(msg)
    folder = sample_folder(study)
    wanted = _fingerprint(study, study.simulate)
    if run.keeps("simulate", folder / SAMPLE, SimulatedSample, wanted):
        return
    with replacing_folder(folder) as new, open_farm(study.dask) as client:
        plans = plan_files(study.simulate, folder=new, seed=study.seed, layout=study.dataset.layout)
        files = map_parts(client, write_file, plans, label="simulate")
        SimulatedSample(fingerprint=wanted, parts=tuple(files)).save(new / SAMPLE)
    run.counts["simulated_clusters"] = study.simulate.num_clusters
    log.info("simulate: %d clusters in %d files", study.simulate.num_clusters, len(files))


def _fingerprint(study: Study, settings: SampleSettings) -> str:
    simulator = SIMULATORS[settings.simulator]
    return fingerprint(
        stage="simulate",
        version=simulator.recipe,
        **{name: sha256_of(path) for name, path in simulator.files.items()},
        settings=settings,
        seed=study.seed,
        layout=study.dataset.layout,
    )


if __name__ == "__main__":
    sys.exit(run_job("simulate", main, sys.argv[1:]))
