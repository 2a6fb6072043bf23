"""Where a study runs: the sections of a site file, which change no result."""

from dataclasses import fields
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from pipeline.formats.records import PathText, Record
from pipeline.root.remote import RemoteSettings
from training.job import Resources

Port = Annotated[int, Field(ge=0, lt=65_536)]


class TlsSettings(Record):
    """The files of a certificate, for a farm that somebody else has started.

    Attributes:
        ca: The authority that signed the certificates of scheduler and workers.
        cert: This user's certificate.
        key: Its private key.
    """

    ca: PathText
    cert: PathText
    key: PathText


class BatchSettings(Record):
    """Jobs of a batch system that are Dask workers.

    Attributes:
        minimum: Jobs that are kept in the queue or running as long as the farm is open.
        maximum: Jobs at most, while there is work for them; None: the minimum.
        cores: Of a job: as many worker processes, with one thread each.
        memory: Of a job, such as 4GB.
        disk: Of a job; HTCondor wants to know.
        wall_minutes: That a job may take. Workers leave before, in a time drawn between 70 % and
            90 % of it, so that not all leave at once; others take their place and their work.
        lifetime_minutes: After which a worker leaves, if not after 80 % of its job's time.
        stagger_minutes: By how much that differs from worker to worker, if not by 10 %.
        queue: Partition of SLURM.
        account: Of SLURM, or HTCondor's accounting group.
        directives: Further lines for the scheduler, passed on as they are: `--qos=short` for
            SLURM, `+JobFlavour = "longlunch"` for HTCondor.
        submit_args: Further words for the command that submits, of HTCondor.
        prologue: Shell commands of a job before its workers start.
        python: Of the nodes, if not this one.
        worker_args: Further words for `dask worker`, such as `--worker-port 10000:10100`.
        interface: The network interface that scheduler and workers talk through, by name.
        scheduler_port: That workers connect to; 0 takes any that is free.
        logs: A folder for what the jobs print; all nodes must see it.
        scratch: A folder on the disk of a node, for what does not fit into memory; variables of
            the node's shell, such as $TMPDIR, are allowed.
        certificates: Where a folder for this run's certificates is made, which only its owner can
            open; all nodes must see it. None: among the logs.
        tls: Encrypt and authenticate everything that scheduler, workers and this job exchange.
        patience_minutes: To wait for a first worker, or for a new one when all are gone.
    """

    minimum: PositiveInt = 1
    maximum: PositiveInt | None = None
    cores: PositiveInt = 1
    memory: str = "2GB"
    disk: str = "2GB"
    wall_minutes: PositiveInt = 60
    lifetime_minutes: PositiveFloat | None = None
    stagger_minutes: PositiveFloat | None = None
    queue: str | None = None
    account: str | None = None
    directives: tuple[str, ...] = ()
    submit_args: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    python: str | None = None
    worker_args: tuple[str, ...] = ()
    interface: str = ""
    scheduler_port: Port = 0
    logs: PathText | None = None
    scratch: str | None = None
    certificates: PathText | None = None
    tls: bool = True
    patience_minutes: PositiveFloat = 60.0

    @model_validator(mode="after")
    def _maximum_is_not_less(self) -> Self:
        if self.maximum is not None and self.maximum < self.minimum:
            msg = f"maximum must be at least minimum = {self.minimum}, got {self.maximum}"
            raise ValueError(msg)
        return self


class DaskSettings(Record):
    """Where and how wide Dask runs; changes no result.

    Attributes:
        farm: "local": processes of this machine, on its loopback interface. "address": a farm
            that runs already. "slurm", "htcondor": jobs of a batch system, which this job submits
            and cancels.
        workers: Processes of the local farm; None: one for each core.
        address: Of the scheduler of a farm that runs already, `tls://HOST:PORT` or `tcp://...`.
        tls: The certificate for an address that begins with tls.
        batch: The jobs of a batch system.
        read_rows: Clusters that a worker reads from a ROOT file at a time, about.
        remote: How files on servers are read.
    """

    farm: Literal["local", "address", "slurm", "htcondor"] = "local"
    workers: Annotated[int, Field(gt=0)] | None = None
    address: str | None = None
    tls: TlsSettings | None = None
    batch: BatchSettings = BatchSettings()
    read_rows: Annotated[int, Field(gt=0)] = 131_072
    remote: RemoteSettings = RemoteSettings()

    @model_validator(mode="after")
    def _the_farm_has_what_it_needs(self) -> Self:
        if self.farm == "address" and self.address is None:
            msg = "farm address needs dask.address, the address of its scheduler"
            raise ValueError(msg)
        if (self.address or "").startswith("tls:") and self.tls is None:
            msg = "an address with tls needs dask.tls, with the files ca, cert and key"
            raise ValueError(msg)
        if self.farm in {"slurm", "htcondor"}:
            _require_place(self.batch)
        return self


def _require_place(batch: BatchSettings) -> None:
    if not batch.interface:
        msg = (
            "a batch farm needs dask.batch.interface, the network interface that its nodes reach "
            "this machine by, as `ip -brief address` names it; there is no default, since whoever "
            "reaches a scheduler without TLS runs commands in your name"
        )
        raise ValueError(msg)
    if not batch.logs:
        msg = "a batch farm needs dask.batch.logs, a folder that all nodes see"
        raise ValueError(msg)


class RaySettings(Record):
    """Where and how wide training runs.

    On CPUs this changes results by rounding only; a GPU has other random numbers.

    Attributes:
        address: "local": an embedded Ray of this job alone. "none": this process itself, one
            worker, which saves some seconds where one is enough. "auto": the Ray cluster that
            this machine is a node of. "http://HOST:8265": the job server of a cluster, to which
            `topocal submit` sends jobs.
        token: The file with the token of a cluster, which only its owner can read; None: what
            Ray finds in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.
        python: Of a cluster that jobs are submitted to, as its head node finds it.
        interface: The network interface that the workers of a cluster talk through; None: that
            of each node's host name. A local Ray keeps to loopback.
        workers: Processes that share the batches of a bnn, or the members of an ensemble; 0: as
            many as find a place and have something to do.
        threads: Compute threads of a worker, beside the one that makes its noise. Threads that
            wait for each other within a step lose far more than they win on a shared machine.
        gpu: Train on GPUs.
        workers_per_gpu: That share one GPU; they talk through gloo, since NCCL allows one alone.
        fuse: Let torch compile what lies between the products, on a GPU; takes a C compiler.
        tensorboard: Write the history for TensorBoard as well, to models/NAME/tensorboard.
    """

    address: Annotated[str, Field(pattern=r"^(local|none|auto|https?://.+)$")] = "local"
    token: PathText | None = None
    python: str = "python"
    interface: str | None = None
    workers: NonNegativeInt = 1
    threads: PositiveInt = 1
    gpu: bool = False
    workers_per_gpu: PositiveInt = 1
    fuse: bool = False
    tensorboard: bool = False

    @field_validator("address", mode="before")
    @classmethod
    def _is_no_ray_client(cls, address: object) -> object:
        if isinstance(address, str) and address.startswith("ray://"):
            msg = (
                "a training would end with the connection to a Ray Client server; give the "
                "address of the cluster's job server, http://HOST:8265, or lead there with "
                "`ssh -N -L 8265:127.0.0.1:8265 HOST`"
            )
            raise ValueError(msg)
        return address

    @model_validator(mode="after")
    def _one_process_is_one_worker(self) -> Self:
        if self.address == "none" and (self.workers > 1 or self.gpu):
            msg = "address none means one worker on the CPU; use address local for more"
            raise ValueError(msg)
        return self

    def resources(self) -> Resources:
        """What a training is told of it."""
        names = {field.name for field in fields(Resources)}
        return Resources(**self.model_dump(include=names))
