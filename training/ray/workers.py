"""Ray wiring: one training spread over workers of Ray Train.

A training with address "local" starts a Ray of its own, bound to the loopback interface and
guarded by a token, and ends it. Our checkpoints are the only truth for resuming; nothing is
reported to Ray while training.

Ray Train lets torch's workers meet at a TCP store, which listens on every interface and asks nobody
for a token. Workers of one machine meet in a file that its owner alone can open.
"""

import logging
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
import torch
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from torch import distributed

from pipeline.formats.errors import StoppedBySignal, UserError
from pipeline.formats.files import write_text
from training.checkpoint import newest_checkpoint
from training.data.training_data import TrainingData, read_data_for
from training.epoch import LossNotFiniteError
from training.history import showing_progress, write_history
from training.job import TrainingJob
from training.loop import train_network
from training.ray.environment import LOCAL, POLL_SECONDS, OwnerChanged
from training.ray.placement import Placement, place_workers
from training.ray.session import cluster_resources, ray_session, require_shared
from training.worker import Worker, sum_over_workers

log = logging.getLogger(__name__)


@dataclass
class MeetingInFile(TorchConfig):
    """Workers of one machine meet in a new file of a folder.

    Attributes:
        folder: That its owner alone can open.
    """

    folder: str = ""

    @property
    def backend_cls(self) -> type:
        """What Ray Train starts the workers' process group with."""
        return _FileBackend


class _FileBackend(TorchConfig().backend_cls):  # type: ignore[misc]  # a class as a value
    """Ray's own, but for the meeting."""

    def on_start(self, worker_group: Any, backend_config: MeetingInFile) -> None:  # noqa: ANN401
        """Let the workers meet; a group that starts again meets in another file."""
        path = Path(backend_config.folder) / uuid.uuid4().hex
        size = len(worker_group)
        ray.get([
            worker_group.execute_single_async(
                rank, _join, backend_config.backend, str(path), rank, size, backend_config.timeout_s
            )
            for rank in range(size)
        ])


def _join(backend: str, path: str, rank: int, size: int, seconds: float) -> None:
    distributed.init_process_group(
        backend=backend,
        init_method=f"file://{path}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=seconds),
    )


OWNER = "checkpoints/owner"  # names the fit whose workers may write; others stop
STOP_SECONDS = 60.0  # that workers get to reach their next step
MAX_FAILURES = 3

RAISED = (LossNotFiniteError, UserError, StoppedBySignal)  # what a worker ends with on purpose


def fit(job: TrainingJob, should_stop: Callable[[], bool] = lambda: False) -> None:
    """Train, or continue, on Ray workers until the last checkpoint is written.

    Args:
        job: What is trained, and where.
        should_stop: Asked several times a second; True ends the training.

    Raises:
        UserError: The dataset or a setting is at fault, or the loss is not finite.
        StoppedBySignal: should_stop returned True; run again to continue.
        RuntimeError: The workers failed more often than is retried.
    """
    labels = None if job.labels is None else job.labels.resolve()
    job = replace(job, dataset=job.dataset.resolve(), folder=job.folder.resolve(), labels=labels)
    folder = job.folder
    done = newest_checkpoint(folder, job.fingerprint)
    if done is not None and done.epoch >= job.settings.epochs:
        write_history(folder, done.history)
        return
    scratch = folder.parent / f".ray-{job.name}-{uuid.uuid4().hex[:8]}"
    write_text(folder / OWNER, scratch.name)
    try:
        if job.resources.address == LOCAL:
            _fit_here(job, scratch, should_stop)
        else:
            _fit_there(job, scratch, should_stop)
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        shutil.rmtree(scratch, ignore_errors=True)


def _fit_here(job: TrainingJob, scratch: Path, should_stop: Callable[[], bool]) -> None:
    """Train on a Ray of this process alone, whose workers meet in a file."""
    here = {"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()}
    placement = place_workers(job.settings, job.resources, here)
    with (
        ray_session(LOCAL, placement.num_workers * placement.threads),
        TemporaryDirectory(prefix="topocal-meeting-") as meeting,
    ):
        torch_config = MeetingInFile(placement.backend, folder=meeting)
        _fit(job, _trainer(job, placement, torch_config, scratch), placement, should_stop)


def _fit_there(job: TrainingJob, scratch: Path, should_stop: Callable[[], bool]) -> None:
    """Train on a Ray cluster, all of whose nodes must see the dataset and the folder."""
    with ray_session(job.resources.address, 0, job.resources.interface):
        require_shared(job.dataset)
        require_shared(job.folder)
        placement = place_workers(job.settings, job.resources, cluster_resources())
        torch_config = TorchConfig(placement.backend)
        _fit(job, _trainer(job, placement, torch_config, scratch), placement, should_stop)


def _fit(
    job: TrainingJob, trainer: TorchTrainer, placement: Placement, should_stop: Callable[[], bool]
) -> None:
    log.info("train: %s on %s", job.folder.name, placement.describe(job.settings))
    with showing_progress(job.folder, job.settings.epochs):
        _raise_as_was(_run_trainer(trainer, job.folder, should_stop))


def _trainer(
    job: TrainingJob, placement: Placement, torch_config: TorchConfig, scratch: Path
) -> TorchTrainer:
    """The trainer; a worker that dies takes the others with it, and all start again."""
    work: Any = _work  # Ray's annotation leaves out that the function may return a value
    resources = {"CPU": float(placement.threads), "GPU": placement.gpus}
    return TorchTrainer(
        work,
        train_loop_config={"job": job, "owner": scratch.name},
        torch_config=torch_config,
        scaling_config=ScalingConfig(
            num_workers=placement.num_workers,
            use_gpu=placement.gpus > 0,
            resources_per_worker={name: share for name, share in resources.items() if share},
        ),
        run_config=RunConfig(
            name=scratch.name,
            storage_path=str(scratch),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
        ),
    )


def _run_trainer(
    trainer: TorchTrainer, folder: Path, should_stop: Callable[[], bool]
) -> Mapping[str, str]:
    """What the first worker returned.

    The trainer runs in a thread, because in the main thread Ray would take over the signals.
    """
    outcome: Future[Any] = Future()

    def run() -> None:
        try:
            outcome.set_result(trainer.fit())
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        while not (wait([outcome], POLL_SECONDS).done or should_stop()):
            pass
    finally:
        if not outcome.done():
            (folder / OWNER).unlink(missing_ok=True)  # tells the workers to stop
            wait([outcome], STOP_SECONDS)
    if should_stop() and (not outcome.done() or outcome.exception() is not None):
        msg = "training stopped, its last complete epoch is kept; run again"
        raise StoppedBySignal(msg)
    try:
        value: Mapping[str, str] = outcome.result().return_value
    except (TrainingFailedError, RayError) as error:
        raise _told(error) from error
    return value


def _told(error: Exception) -> Exception:
    """What one worker alone has found wrong, or that the training failed."""
    failures = error.worker_failures.values() if isinstance(error, WorkerGroupError) else ()
    found = (failed for failed in failures if isinstance(failed, UserError))
    msg = f"the training failed {MAX_FAILURES + 1} times: {_last_line(error)}"
    return next(found, RuntimeError(msg))


def _raise_as_was(outcome: Mapping[str, str]) -> None:
    """Raise what the worker ended with on purpose."""
    for kind in RAISED:
        if outcome["ended"] == kind.__name__:
            raise kind(outcome["message"])


def _last_line(error: Exception) -> str:
    """The line of a worker's traceback that names the exception."""
    log.debug("the workers' failures", exc_info=error)
    if isinstance(error, WorkerGroupError):
        failures = [
            f"worker {rank}: {_tail(failed)}" for rank, failed in error.worker_failures.items()
        ]
        return "; ".join(failures)
    return _tail(error)


def _tail(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _work(config: dict[str, Any]) -> dict[str, str]:
    """One worker: the plain loop, with the sum over workers that suits their places."""
    job: TrainingJob = config["job"]
    context, wanted = get_context(), job.resources
    if wanted.gpu and not torch.cuda.is_available():  # Ray names a device all the same
        msg = "Ray has given a GPU that torch does not see; is it the CPU build of torch?"
        return {"ended": UserError.__name__, "message": msg}
    rank, world_size = context.get_world_rank(), context.get_world_size()
    device = get_device() if wanted.gpu else torch.device("cpu")
    worker = Worker(
        rank=rank,
        world_size=world_size,
        threads=wanted.threads,
        device=device,
        fuse=wanted.fuse,
        all_reduce=sum_over_workers(world_size),
    )
    try:
        data = _read_together(job, worker)
    except UserError as error:
        return _ended(error)
    try:
        train_network(
            data,
            job.settings,
            seed=job.seed,
            fingerprint=job.fingerprint,
            folder=job.folder,
            worker=worker,
            tensorboard=wanted.tensorboard,
            should_stop=OwnerChanged(job.folder / OWNER, config["owner"]),
        )
    except (LossNotFiniteError, StoppedBySignal) as error:  # of all workers, at the same step
        return _ended(error)
    except UserError as error:
        if world_size == 1:
            return _ended(error)
        raise  # the others wait for this worker: of what fails Ray ends all
    return {"ended": "", "message": ""}


def _ended(error: Exception) -> dict[str, str]:
    return {"ended": type(error).__name__, "message": str(error)}


def _read_together(job: TrainingJob, worker: Worker) -> TrainingData:
    """The data, or the same kind of error in all workers, so that none waits for the others."""
    settings = job.settings
    failed: UserError | None = None
    data: TrainingData | None = None
    try:
        data = read_data_for(settings, job.dataset, job.labels)
    except UserError as error:
        failed = error
    failures = torch.tensor(float(data is None), device=worker.device)
    worker.all_reduce(failures)
    if data is None or failures.item() > 0:
        msg = (
            f"{job.dataset}: another worker cannot read it; is it on a file system that all nodes "
            "see?"
        )
        raise failed or UserError(msg)
    return data
