"""Train the study's models on growing subsets: what sigma_stat and sigma_syst become.

Run: topocal scaling STUDY.yaml [--dry-run]
Reads <output>/dataset; writes <output>/scaling/trainings/LADDER/rows-*/sample-*-seed-*/, a folder
for each training, and, last, <output>/scaling/tables/*.parquet and *.csv. A run that was stopped
goes on where it was. With --dry-run nothing is trained: the cost is told.
"""

import logging
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from jobs.calibrate import oracle_source
from jobs.ingest import open_dataset
from jobs.launch import Run, run_job
from jobs.signals import stop_requests
from jobs.sites import RaySettings
from jobs.study import Study
from jobs.training_size.plan import (
    PointPlan,
    Training,
    expected_rows,
    fingerprint_of,
    plan_trainings,
    section_of,
)
from jobs.training_size.rows import StudyRows, make_rows
from pipeline.formats.errors import UserError, requiring_extra
from pipeline.formats.files import write_text
from pipeline.formats.folders import claim, replacing_folder
from pipeline.formats.lock import holding
from pipeline.formats.manifest import MANIFEST, DatasetManifest, columns_of
from pipeline.formats.records import OutputRecord
from pipeline.formats.versions import fingerprint
from pipeline.progress import Shown
from pipeline.training_size.points import POINT, PointRecord, judge_rows, load_rows
from pipeline.training_size.settings import ScalingSettings
from pipeline.training_size.table import Point, make_tables
from training.job import TrainingJob

log = logging.getLogger(__name__)

OPTIONS = {"dry-run": "say what it would cost, and train nothing"}
VERSION = 4  # raised when the same trainings give other tables
OWNER = "owner"  # names the run whose tasks may write; others stop
TABLES = "tables"


class ScalingManifest(OutputRecord):
    """The tables of a scaling study; written last.

    Attributes:
        dataset: Fingerprint of the dataset.
        settings: The section.
        trained: Fingerprint of what else in the study the trainings and their figures follow from.
        sizes: Of the files, by path.
    """

    dataset: str
    settings: ScalingSettings
    trained: str
    sizes: dict[str, int]

    @property
    def files(self) -> Mapping[str, int]:
        """Size in bytes of each file, by its path."""
        return self.sizes


def scaling_folder(study: Study) -> Path:
    """The folder that holds the subsets, trainings and tables of a scaling study."""
    return study.folder / "scaling"


def main(study: Study, run: Run) -> None:
    """Do the trainings that are not done yet, then the tables."""
    scaling = section_of(study)
    if study.ray.workers == 0:
        msg = "ray.workers: 0 leaves the number open; give how many trainings run side by side"
        raise UserError(msg)
    if "dry-run" in run.options:
        _tell_cost(study, plan_trainings(study, expected_rows(study)))
        return
    manifest = open_dataset(study)
    manifest.target_range()  # refuses a dataset without truth
    trainings = plan_trainings(study, manifest.rows_of("train"))
    folder = scaling_folder(study)
    claim(folder)
    with holding(folder):
        rows = make_rows(study, folder, manifest, trainings)
        plans = plan_points(study, folder, rows, trainings)
        if run.redo:
            for plan in plans:
                shutil.rmtree(plan.folder, ignore_errors=True)
        pending = [plan for plan in plans if not plan.is_done()]
        done = len(plans) - len(pending)
        log.info("scaling: %d trainings, %d are done already", len(plans), done)
        run.counts |= {"trained": len(pending), "kept": done}
        if pending:
            _tell_cost(study, [plan.training for plan in pending])
            _train(study.ray, folder, pending, scaling.large_rows)
        _write_tables(study, run, manifest, plans, folder / TABLES)


def open_tables(study: Study, manifest: DatasetManifest) -> dict[str, pa.Table]:
    """The tables of the study's scaling study by name; empty where it is not done.

    Raises:
        UserError: They were made with other settings or another dataset.
    """
    folder = scaling_folder(study) / TABLES
    if study.scaling is None or not (folder / MANIFEST).exists():
        return {}
    done = ScalingManifest.load(folder / MANIFEST, made_by="scaling")
    wanted = (manifest.fingerprint, study.scaling, fingerprint_of_models(study, study.scaling))
    if (done.dataset, done.settings, done.trained) != wanted:
        msg = f"{folder}: made with other settings or another dataset; run `topocal scaling` again"
        raise UserError(msg)
    done.require_files(folder, made_by="scaling")
    paths = [folder / name for name in done.sizes if name.endswith(".parquet")]
    return {path.stem: pq.read_table(path) for path in paths}


def fingerprint_of_models(study: Study, scaling: ScalingSettings) -> str:
    """Of what the trainings and their figures follow from besides dataset and section."""
    ladders = scaling.ladders.values()
    models = {ladder.model: study.models[ladder.model] for ladder in ladders}
    return fingerprint(models=models, calibrate=study.calibrate, seed=study.seed)


def plan_points(
    study: Study, folder: Path, rows: StudyRows, trainings: Sequence[Training]
) -> list[PointPlan]:
    """What a worker needs for each training."""
    owner = (folder / OWNER, uuid.uuid4().hex)
    test, identity = rows.test
    plans = []
    for training in trainings:
        subset, subset_identity = rows.subsets[training.rows, training.sample]
        wanted = fingerprint_of(
            training, training.seed(study.seed), subset_identity, identity, study.calibrate
        )
        plans.append(
            PointPlan(
                training=training,
                seed=training.seed(study.seed),
                dataset=subset,
                test=test,
                # with other settings it is another folder: what took hours is never overwritten
                folder=folder / "trainings" / f"{training.key}-{wanted[:8]}",
                fingerprint=wanted,
                summary=study.calibrate,
                threads=study.ray.threads,
                use_gpu=study.ray.gpu,
                owner=owner,
            )
        )
    return plans


def _tell_cost(study: Study, trainings: Sequence[Training]) -> None:
    with requiring_extra("train", "training"):
        from jobs.training_size.cost import estimate_cost  # noqa: PLC0415 - needs torch
    for line in estimate_cost(study, trainings):
        log.info("scaling: %s", line)


def _train(ray: RaySettings, folder: Path, plans: Sequence[PointPlan], large_rows: int) -> None:
    write_text(plans[0].owner[0], plans[0].owner[1])
    total = sum(plan.training.updates for plan in plans)
    try:
        with stop_requests() as should_stop, Shown("scaling", total, "updates") as shown:
            for plan in _finished(ray, plans, large_rows, should_stop):
                shown.advance(plan.training.updates)
                log.info("scaling: %s", _describe(plan))
    finally:
        (folder / OWNER).unlink(missing_ok=True)


def _finished(
    ray: RaySettings,
    plans: Sequence[PointPlan],
    large_rows: int,
    should_stop: Callable[[], bool],
) -> Iterator[PointPlan]:
    """The trainings as they end."""
    with requiring_extra("train", "training"):
        from jobs.train_networks import prepare_ray  # noqa: PLC0415 - needs torch
        from jobs.training_size.point import make_point  # noqa: PLC0415 - the cost is told without it
    if ray.address == "none":
        for plan in plans:
            make_point(plan, should_stop)
            yield plan
        return
    from training.ray.session import ray_session  # noqa: PLC0415 - Ray takes seconds
    from training.ray.tasks import Needs, run_tasks  # noqa: PLC0415

    prepare_ray(ray)
    large = [plan for plan in plans if plan.training.rows > large_rows and ray.workers > 1]
    small = [plan for plan in plans if plan not in large]
    needs = Needs(ray.threads, _gpus_of(ray))
    with ray_session(ray.address, ray.workers * ray.threads, ray.interface):
        for number, _ in run_tasks(make_point, small, needs, should_stop):
            yield small[number]
        _share_all(ray, large, should_stop)
        for number, _ in run_tasks(make_point, large, needs, should_stop):
            yield large[number]


def _gpus_of(ray: RaySettings) -> float:
    """Of one worker."""
    return 1.0 / ray.workers_per_gpu if ray.gpu else 0.0


def _share_all(
    ray: RaySettings, plans: Sequence[PointPlan], should_stop: Callable[[], bool]
) -> None:
    """Train large models, each on several workers, as many at once as there is room for."""
    from training.ray.tasks import Needs, capacity  # noqa: PLC0415 - Ray takes seconds

    together = Needs(ray.threads * ray.workers, ray.workers * _gpus_of(ray))
    with ThreadPoolExecutor(capacity(together)) as pool:
        list(pool.map(lambda plan: _share(ray, plan, should_stop), plans))


def _share(ray: RaySettings, plan: PointPlan, should_stop: Callable[[], bool]) -> None:
    """Train one model on several workers, up to its last checkpoint."""
    from training.ray.placement import most_workers  # noqa: PLC0415
    from training.ray.workers import fit  # noqa: PLC0415 - Ray takes seconds

    plan.work.mkdir(parents=True, exist_ok=True)
    settings = plan.training.settings
    job = TrainingJob(
        plan.dataset,
        settings,
        name=plan.training.key.replace("/", "-"),
        seed=plan.seed,
        folder=plan.work,
        fingerprint=plan.fingerprint,
        resources=replace(ray.resources(), workers=min(ray.workers, most_workers(settings))),
    )
    fit(job, should_stop)


def _write_tables(
    study: Study, run: Run, manifest: DatasetManifest, plans: Sequence[PointPlan], folder: Path
) -> None:
    scaling = section_of(study)
    wanted = fingerprint(
        stage="scaling tables",
        version=VERSION,
        settings=scaling,
        points=[plan.fingerprint for plan in plans],
    )
    if run.keeps("scaling", folder / MANIFEST, ScalingManifest, wanted):
        return
    points = [
        Point(PointRecord.load(plan.folder / POINT, made_by="scaling"), load_rows(plan.folder))
        for plan in sorted(plans, key=lambda plan: plan.training.key)
    ]
    exact = [
        judge_rows(source.calibrator, plans[0].test)
        for source in oracle_source(manifest, study.calibrate)
    ]
    oracle = {name: values for table in exact for name, values in columns_of(table).items()}
    with replacing_folder(folder) as new:
        made = make_tables(scaling, points, oracle or None)
        for name, table in made.items():
            pq.write_table(table, new / f"{name}.parquet")
            pa_csv.write_csv(table, new / f"{name}.csv")
        sizes = {path.name: path.stat().st_size for path in sorted(new.glob("scaling*"))}
        done = ScalingManifest(
            fingerprint=wanted,
            dataset=manifest.fingerprint,
            settings=scaling,
            trained=fingerprint_of_models(study, scaling),
            sizes=sizes,
        )
        done.save(new / MANIFEST)
    log.info("scaling: tables in %s", folder)


def _describe(plan: PointPlan) -> str:
    record = PointRecord.load(plan.folder / POINT, made_by="scaling")
    scores = ", ".join(f"{name} {value:.4f}" for name, value in record.scores.items())
    return f"{plan.training.key}: {record.updates} updates in {record.seconds:.0f} s, {scores}"


if __name__ == "__main__":
    sys.exit(run_job("scaling", main, sys.argv[1:], OPTIONS))
