"""What one training is asked for: its data, settings and folder, and where it may run."""

from dataclasses import dataclass
from pathlib import Path

from training.settings import NetworkSettings


@dataclass(frozen=True, slots=True)
class Resources:
    """Where a training runs; nothing here enters a fingerprint.

    Attributes:
        workers: Processes that share each batch, or the members of an ensemble; 0: as many as find
            a place and have something to do.
        threads: Compute threads, and thus CPUs, of each.
        gpu: Whether they train on GPUs.
        workers_per_gpu: That share one GPU.
        fuse: Let torch compile what lies between the products, on a GPU.
        address: Of a Ray cluster; "local" starts one that ends with the training and never joins
            another, "none" trains in this process with one worker and without Ray.
        interface: The network interface that the workers of a cluster talk through.
        tensorboard: Write the history for TensorBoard as well.
    """

    workers: int = 1
    threads: int = 1
    gpu: bool = False
    workers_per_gpu: int = 1
    fuse: bool = False
    address: str = "local"
    interface: str | None = None
    tensorboard: bool = False


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One training; it is sent whole from the job that asks for it to each worker.

    Attributes:
        dataset: The folder of the manifest; all nodes must see it.
        settings: Of the networks and their training.
        name: Of the model in its study.
        seed: All random numbers follow from it.
        folder: Of the model; checkpoints of the same fingerprint in it are continued. All nodes
            must see it.
        fingerprint: Of settings and data.
        labels: The folder of labels that a tagger is to predict; None for the dataset's target.
        resources: Where it runs.
    """

    dataset: Path
    settings: NetworkSettings
    name: str
    seed: int
    folder: Path
    fingerprint: str
    labels: Path | None = None
    resources: Resources = Resources()
