"""Training of networks: here, or by Ray Train on the cluster that the study names."""

from jobs.signals import stop_requests
from jobs.sites import RaySettings
from jobs.task import Task
from pipeline.formats.card import ModelCard
from pipeline.formats.errors import StoppedBySignal, UserError
from training.job import TrainingJob
from training.ray.environment import choose_token
from training.settings import NetworkSettings
from training.train import train_model


def prepare_ray(ray: RaySettings) -> None:
    """Before Ray is started or joined.

    Raises:
        UserError: Its address takes submitted jobs alone, or there is no usable token.
    """
    if "://" in ray.address:
        msg = (
            f"ray.address: {ray.address} takes jobs from `topocal submit` alone, since what leads "
            "a training has to run on the cluster"
        )
        raise UserError(msg)
    if ray.address not in {"local", "none"}:
        choose_token(ray.token)


def train_networks(task: Task, settings: NetworkSettings) -> ModelCard:
    """Train a network or an ensemble, or continue it, and write its files, the card last.

    Raises:
        UserError: The dataset or a setting is at fault.
        StoppedBySignal: A signal came; run again to continue.
    """
    ray = task.study.ray
    prepare_ray(ray)
    with stop_requests() as should_stop:
        job = TrainingJob(
            task.dataset,
            settings,
            name=task.name,
            seed=task.study.seed,
            folder=task.folder,
            fingerprint=task.fingerprint,
            labels=task.labels,
            resources=ray.resources(),
        )
        card = train_model(job, should_stop)
        if should_stop():
            msg = f"stopped by a signal after model {task.name}; run again to continue"
            raise StoppedBySignal(msg)
    return card
