"""Ray wiring: one training spread over workers.

A training with address "local" starts a Ray of its own, bound to the loopback interface and
guarded by a token, and ends it. Our checkpoints are the only truth for resuming; nothing is
reported to Ray while training.
"""

import logging
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch
from pydantic import TypeAdapter
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from torch import Tensor, distributed

from pipeline.formats.errors import StoppedBySignal, UserError
from pipeline.formats.files import write_text
from training.checkpoint import newest_checkpoint
from training.data import TrainingData, read_training_data
from training.epoch import Worker
from training.faults import LossNotFiniteError
from training.history import showing_progress, write_history
from training.loop import train_network
from training.noise import BLOCK_ROWS
from training.ray_environment import (
    LOCAL,
    POLL_SECONDS,
    OwnerChanged,
    ensure_token,
    own_signals,
    ray_environment,
    worker_environment,
)
from training.settings import RepulsiveEnsembleSettings, TrainedSettings

OWNER = "checkpoints/owner"  # names the fit whose workers may write; others stop
STOP_SECONDS = 60.0  # that workers get to reach their next step
OBJECT_STORE_BYTES = 128 * 2**20  # nothing large is shipped; each worker reads its rows itself
MAX_FAILURES = 3

RAISED = (LossNotFiniteError, UserError, StoppedBySignal)  # what a worker ends with on purpose

log = logging.getLogger(__name__)


def fit(  # noqa: PLR0913 - wiring
    dataset: Path,
    settings: TrainedSettings,
    *,
    name: str,
    seed: int,
    folder: Path,
    fingerprint: str,
    num_workers: int,
    use_gpu: bool,
    threads_per_worker: int,
    address: str = LOCAL,
    fuse: bool = False,
    tensorboard: bool = False,
    labels: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train, or continue, on Ray workers until the last checkpoint is written.

    Args:
        dataset: The folder of the manifest; all nodes must see it.
        settings: Of the network and its training.
        name: Of the model, for Ray's logs.
        seed: All random numbers follow from it.
        folder: Of the model; all nodes must see it.
        fingerprint: Of settings and data.
        num_workers: Processes that share each batch, or the members of an ensemble.
        use_gpu: One GPU for each worker.
        threads_per_worker: Compute threads and CPUs of each worker.
        address: Of a Ray cluster; "local" starts one and never joins another.
        fuse: Let torch compile what lies between the products, on a GPU.
        tensorboard: Write the history for TensorBoard as well.
        labels: The folder of labels that a tagger is to predict; all nodes must see it.
        should_stop: Asked several times a second; True ends the training.

    Raises:
        UserError: The dataset or a setting is at fault, or the loss is not finite.
        StoppedBySignal: should_stop returned True; run again to continue.
        RuntimeError: The workers failed more often than is retried.
    """
    _refuse_idle(settings, num_workers)
    if use_gpu and address == LOCAL and torch.cuda.device_count() < num_workers:
        msg = (
            f"ray.gpu: {num_workers} workers want a GPU each, torch sees "
            f"{torch.cuda.device_count()}; set ray.gpu=false or fewer ray.workers"
        )
        raise UserError(msg)
    dataset, folder = dataset.resolve(), folder.resolve()
    done = newest_checkpoint(folder, fingerprint)
    if done is not None and done.epoch >= settings.epochs:
        write_history(folder, done.history)
        return
    scratch = folder.parent / f".ray-{name}-{uuid.uuid4().hex[:8]}"
    config = {
        "dataset": str(dataset),
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "folder": str(folder),
        "fingerprint": fingerprint,
        "threads": threads_per_worker,
        "fuse": fuse,
        "tensorboard": tensorboard,
        "labels": None if labels is None else str(labels.resolve()),
        "owner": scratch.name,
    }
    scaling = _scaling(num_workers, threads_per_worker, use_gpu=use_gpu)
    write_text(folder / OWNER, scratch.name)
    try:
        with ray_session(address, num_workers * threads_per_worker):
            trainer = _trainer(config, scaling, scratch)
            with showing_progress(folder, settings.epochs):
                _raise_as_was(_run_trainer(trainer, folder, should_stop))
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        shutil.rmtree(scratch, ignore_errors=True)


def most_workers(settings: TrainedSettings) -> int:
    """How many workers can share a training: the blocks of a batch, or the members."""
    if isinstance(settings, RepulsiveEnsembleSettings):
        return settings.members
    return -(-settings.batch_rows // BLOCK_ROWS)


def _refuse_idle(settings: TrainedSettings, num_workers: int) -> None:
    most = most_workers(settings)
    if num_workers > most:
        shared = (
            f"{settings.members} members"
            if isinstance(settings, RepulsiveEnsembleSettings)
            else f"a batch of {settings.batch_rows} rows in blocks of {BLOCK_ROWS}"
        )
        msg = (
            f"ray.workers: {num_workers} workers share {shared}, so {num_workers - most} would "
            f"idle; set at most {most}"
        )
        raise UserError(msg)


def _scaling(num_workers: int, threads: int, *, use_gpu: bool) -> ScalingConfig:
    resources = {"CPU": float(threads)} | ({"GPU": 1.0} if use_gpu else {})
    return ScalingConfig(num_workers=num_workers, use_gpu=use_gpu, resources_per_worker=resources)


def _trainer(config: dict[str, Any], scaling: ScalingConfig, scratch: Path) -> TorchTrainer:
    """The trainer; a worker that dies takes the others with it, and all start again."""
    work: Any = _work  # Ray's annotation leaves out that the function may return a value
    return TorchTrainer(
        work,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if scaling.use_gpu else "gloo"),
        scaling_config=scaling,
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
        msg = f"the training failed {MAX_FAILURES + 1} times: {_last_line(error)}"
        raise RuntimeError(msg) from error
    return value


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
    """One worker: the plain loop, with the sum over workers from torch.distributed."""
    context = get_context()
    worker = Worker(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        threads=config["threads"],
        device=get_device(),
        fuse=config["fuse"],
        all_reduce=_all_reduce,
    )
    settings: TrainedSettings = TypeAdapter(TrainedSettings).validate_python(config["settings"])
    folder = Path(config["folder"])
    try:
        train_network(
            _read_together(config, settings, worker),
            settings,
            seed=config["seed"],
            fingerprint=config["fingerprint"],
            folder=folder,
            worker=worker,
            tensorboard=config["tensorboard"],
            should_stop=OwnerChanged(folder / OWNER, config["owner"]),
        )
    except RAISED as error:
        return {"ended": type(error).__name__, "message": str(error)}
    return {"ended": "", "message": ""}


def _all_reduce(summed: Tensor) -> None:
    distributed.all_reduce(summed)


def _read_together(
    config: Mapping[str, Any], settings: TrainedSettings, worker: Worker
) -> TrainingData:
    """The data, or the same kind of error in all workers, so that none waits for the others."""
    dataset = Path(config["dataset"])
    labels = None if config["labels"] is None else Path(config["labels"])
    failed: UserError | None = None
    data: TrainingData | None = None
    try:
        data = read_training_data(dataset, settings.features, settings.memory_mib, labels)
    except UserError as error:
        failed = error
    failures = torch.tensor(float(data is None), device=worker.device)
    worker.all_reduce(failures)
    if data is None or failures.item() > 0:
        msg = (
            f"{dataset}: another worker cannot read it; is it on a file system that all nodes see?"
        )
        raise failed or UserError(msg)
    return data


@contextmanager
def ray_session(address: str, num_cpus: int) -> Iterator[None]:
    """A connection to Ray; what was started here is ended here."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"runtime_env": {"env_vars": worker_environment(address)}}
    if address == LOCAL:
        ensure_token()
        options |= {
            "num_cpus": num_cpus,
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": True,  # without it a helper of Ray complains every second
            "dashboard_host": "127.0.0.1",
        }
    with ray_environment(address):
        with own_signals():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
        try:
            yield
        finally:
            ray.shutdown()
