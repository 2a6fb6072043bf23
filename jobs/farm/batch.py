"""Dask workers as jobs of a batch system, through dask-jobqueue.

While workers are awaited, the batch system is asked what has become of the jobs of this run.
"""

import json
import logging
import shlex
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import dask
from dask_jobqueue.core import Job, JobQueueCluster
from dask_jobqueue.htcondor import HTCondorJob
from dask_jobqueue.slurm import SLURMJob
from distributed import Security
from distributed.deploy.spec import ProcessInterface

from jobs.farm.closing import closed_at_the_end
from jobs.sites import BatchSettings
from pipeline.formats.errors import UserError, cause_of

log = logging.getLogger(__name__)

UNKNOWN = "UNKNOWN"
ANSWER_SECONDS = 60.0  # that a busy batch system gets to answer
CONDOR_STATES = {1: "IDLE", 2: "RUNNING", 3: "REMOVED", 4: "COMPLETED", 5: "HELD"}
# In which a job can still become, or is, a worker.
ALIVE = frozenset({"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "IDLE"})
WAITS_FOR_A_HAND = frozenset({"HELD", UNKNOWN, "OTHER"})


@dataclass(frozen=True, slots=True)
class JobState:
    """One job as its batch system sees it.

    Attributes:
        number: That the batch system gave it.
        state: A word of the batch system in capitals; GONE if it knows the job no more.
        reason: Why it waits, is held or ended; may be empty.
    """

    number: str
    state: str
    reason: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether the job will never be a worker."""
        return self.state not in ALIVE | WAITS_FOR_A_HAND

    @property
    def is_stuck(self) -> bool:
        """Whether the job will not become a worker by waiting alone."""
        return self.state not in ALIVE or "held" in self.reason.lower()


def ask_slurm(numbers: Sequence[str]) -> list[JobState]:
    """The state of jobs of SLURM, which remembers ended ones for some minutes."""
    told = _ask(["squeue", "--noheader", "--states=all", "--format=%i|%T|%r", "--me"])
    if told is None:
        return [JobState(number, UNKNOWN, "squeue does not answer") for number in numbers]
    found = {}
    for line in told.splitlines():
        number, state, reason = (word.strip() for word in line.split("|", 2))
        found[number] = JobState(number, state, "" if reason == "None" else reason)
    return [found.get(number, JobState(number, "GONE")) for number in numbers]


def ask_condor(numbers: Sequence[str]) -> list[JobState]:
    """The state of jobs of HTCondor."""
    attributes = "ClusterId,ProcId,JobStatus,HoldReason"
    told = _ask(["condor_q", "-json", "-attributes", attributes, *numbers])
    if told is None:
        return [JobState(number, UNKNOWN, "condor_q does not answer") for number in numbers]
    found = {}
    for job in json.loads(told or "[]"):
        number = f"{job['ClusterId']}.{job['ProcId']}"
        state = CONDOR_STATES.get(job["JobStatus"], "OTHER")
        found[number] = JobState(number, state, job.get("HoldReason", ""))
    return [found.get(number, JobState(number, "GONE")) for number in numbers]


ASK = {"slurm": ask_slurm, "htcondor": ask_condor}


def describe_jobs(jobs: Sequence[JobState]) -> str:
    """How many jobs are in which state and why, the stuck ones with one of their numbers."""
    kinds = Counter((job.state, job.reason, job.is_stuck) for job in jobs)
    examples = {(job.state, job.reason): job.number for job in reversed(jobs)}
    told = []
    for (state, reason, is_stuck), count in kinds.most_common():
        why = f" ({reason})" if reason else ""
        which = f", such as {examples[state, reason]}" if is_stuck else ""
        told.append(f"{count} {state}{why}{which}")
    return "; ".join(told) or "no jobs"


def _ask(words: Sequence[str]) -> str | None:
    """What a command prints; None if it fails, since a queue may be out of reach for a while."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.debug("%s", words, exc_info=error)
        return None
    return done.stdout


_ROLES = ("scheduler", "worker", "client")
_NO_PAGES = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0")
REJECTED = "REJECTED"
# Of workers from under one task: wall time and preemption are no fault of the task's.
LEAVES = 10
LOOK_SECONDS = (1.0, 30.0)  # between two questions to the queue: at first, and at most


class _Telling(Job):
    """A job that keeps the reason for which the batch system did not take it."""

    rejection = ""

    async def start(self) -> None:
        try:
            await super().start()
        except RuntimeError as error:
            self.rejection = " ".join(str(error).rpartition("stderr:")[2].split())
            await ProcessInterface.start(self)


class _SlurmJob(_Telling, SLURMJob):
    pass


class _CondorJob(_Telling, HTCondorJob):
    pass


@dataclass(frozen=True, slots=True)
class _Submitted:
    """One job of the farm: its number, if it got one, and how many of its workers are there."""

    name: str
    number: str
    rejection: str
    workers: int


@contextmanager
def open_batch_farm(
    kind: str, batch: BatchSettings, environment: Mapping[str, object]
) -> Iterator[JobQueueCluster]:
    """Submit jobs and wait for a first worker; at the end they are cancelled.

    Args:
        kind: Of the batch system: slurm or htcondor.
        batch: The jobs.
        environment: Of the workers.

    Raises:
        UserError: No job was taken, or none became a worker in the time that was set.
    """
    Path(batch.logs or "").mkdir(parents=True, exist_ok=True)
    scheduler = {
        "distributed.scheduler.no-workers-timeout": f"{60 * batch.patience_minutes}s",
        "distributed.scheduler.allowed-failures": LEAVES,
    }
    with dask.config.set(scheduler), certificates(batch) as secured:
        options = _OPTIONS[kind](batch) | _options(batch, environment) | secured
        with closed_at_the_end(_start(options)) as farm, _Watch(farm, kind, batch) as watch:
            farm.adapt(minimum_jobs=batch.minimum, maximum_jobs=batch.maximum or batch.minimum)
            watch.wait_for_a_worker()
            yield farm


@contextmanager
def certificates(batch: BatchSettings) -> Iterator[dict[str, Any]]:
    """A certificate for this run alone, in a folder that its owner alone can open.

    Its files are ca.pem, cert.pem and key.pem; what is given are arguments of a farm.
    """
    if not batch.tls:
        log.warning("dask: without TLS, whoever reaches the scheduler runs commands in your name")
        yield {"protocol": "tcp://"}
        return
    place = batch.certificates or batch.logs or ""
    Path(place).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=place, prefix=".topocal-tls-") as folder:
        made = Security.temporary().get_tls_config_for_role("worker")
        paths = {name: Path(folder) / f"{name}.pem" for name in ("ca", "cert", "key")}
        for name, path in paths.items():
            path.touch(mode=0o600)
            path.write_text(made["ca_file" if name == "ca" else name], encoding="utf-8")
        roles = [f"tls_{role}_{name}" for role in _ROLES for name in ("cert", "key")]
        files = {role: str(paths[role.rpartition("_")[2]]) for role in roles}
        ca = str(paths["ca"])
        yield {"security": Security(require_encryption=True, tls_ca_file=ca, **files)}


def _start(options: dict[str, Any]) -> JobQueueCluster:
    try:
        return JobQueueCluster(**options)
    except (RuntimeError, ValueError) as error:
        inner = error.__cause__ or error
        msg = f"dask.batch: the farm cannot start: {cause_of(inner)}"
        raise UserError(msg) from error


def _options(batch: BatchSettings, environment: Mapping[str, object]) -> dict[str, Any]:
    """What all batch systems share."""
    lifetime = batch.lifetime_minutes or 0.8 * batch.wall_minutes
    stagger = batch.stagger_minutes or 0.1 * batch.wall_minutes
    arguments = [
        "--lifetime",
        f"{60 * lifetime:.0f}s",
        "--lifetime-stagger",
        f"{60 * stagger:.0f}s",
    ]
    exports = [f"export {name}={value}" for name, value in environment.items()]
    return {
        "name": "topocal",
        "job_name": "topocal",
        "cores": batch.cores,
        "processes": batch.cores,
        "memory": batch.memory,
        "interface": batch.interface,
        "scheduler_options": {
            "dashboard_address": "127.0.0.1:0",
            "port": batch.scheduler_port,
            "interface": batch.interface,
        },
        "log_directory": batch.logs,
        "local_directory": batch.scratch,
        "python": batch.python and shlex.quote(batch.python),
        "job_script_prologue": [*exports, *batch.prologue],
        # TLS covers no web pages: a worker's stay on its node's loopback
        "worker_extra_args": [*_NO_PAGES, *arguments, *batch.worker_args],
    }


def _slurm_options(batch: BatchSettings) -> dict[str, Any]:
    return {
        "job_cls": _SlurmJob,
        "walltime": str(batch.wall_minutes),
        "queue": batch.queue,
        "account": batch.account,
        "job_extra_directives": list(batch.directives),
    }


def _condor_options(batch: BatchSettings) -> dict[str, Any]:
    lines = {"+MaxRuntime": str(60 * batch.wall_minutes)}
    if batch.account:
        lines["accounting_group"] = batch.account
    for line in batch.directives:
        key, _, value = line.partition("=")
        lines[key.strip()] = value.strip()
    return {
        "job_cls": _CondorJob,
        "disk": batch.disk,
        "job_extra_directives": lines,
        "submit_command_extra": list(batch.submit_args),
    }


_OPTIONS = {"slurm": _slurm_options, "htcondor": _condor_options}


class _Watch:
    """Looks at the queue from time to time and tells what changes.

    Dask replaces a job of one worker when that is lost, but none of several workers; those are
    replaced here.
    """

    def __init__(self, farm: JobQueueCluster, kind: str, batch: BatchSettings) -> None:
        self._farm, self._ask, self._batch = farm, ASK[kind], batch
        self._joined: set[str] = set()
        self._all_ended = False
        self._told = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_often, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def wait_for_a_worker(self) -> None:
        """Wait until a worker is there.

        Raises:
            UserError: All jobs were rejected, or the time is up.
        """
        patience = self._batch.patience_minutes
        end = time.monotonic() + 60 * patience
        while True:
            jobs = self._submitted()
            if any(job.workers for job in jobs):
                return
            if jobs and all(job.rejection for job in jobs):
                msg = f"the batch system rejects the jobs: {jobs[0].rejection}"
                raise UserError(msg)
            if self._all_ended or time.monotonic() > end:
                after = (
                    "all jobs have ended before they were workers"
                    if self._all_ended
                    else f"no worker after {patience:g} minutes (dask.batch.patience_minutes)"
                )
                msg = (
                    f"{after}: {describe_jobs(self._states(jobs))}; what jobs print is in "
                    f"{self._batch.logs}"
                )
                raise UserError(msg)
            time.sleep(0.1)

    def _look_often(self) -> None:
        pause, most = LOOK_SECONDS
        while not self._ended.wait(pause):
            self._look()
            pause = min(1.5 * pause, most)

    def _look(self) -> None:
        jobs = self._submitted()
        states = self._states(jobs)
        self._joined |= {job.name for job in jobs if job.workers}
        told = f"{sum(job.workers for job in jobs)} workers; queue: {describe_jobs(states)}"
        if told != self._told and (jobs or self._told):
            self._told = told
            any_stuck = any(state.is_stuck for state in states)
            log.log(logging.WARNING if any_stuck else logging.INFO, "dask: %s", told)
        self._all_ended = bool(states) and all(state.has_ended for state in states)
        ended = {state.number for state in states if state.has_ended}
        for job in jobs if self._batch.cores > 1 else ():
            if job.name in self._joined and not job.workers and job.number in ended:
                self._joined.discard(job.name)
                self._farm.sync(_forget, self._farm, job.name)

    def _submitted(self) -> list[_Submitted]:
        found: list[_Submitted] = self._farm.sync(_list_submitted, self._farm)
        return found

    def _states(self, jobs: list[_Submitted]) -> list[JobState]:
        numbers = [job.number for job in jobs if job.number]
        rejected = [JobState("-", REJECTED, job.rejection) for job in jobs if job.rejection]
        return [*rejected, *(self._ask(numbers) if numbers else [])]


async def _list_submitted(farm: JobQueueCluster) -> list[_Submitted]:
    there = {worker["name"] for worker in farm.scheduler_info["workers"].values()}
    found = []
    for name, job in farm.workers.items():
        suffixes = farm.worker_spec.get(name, {}).get("group", [""])
        workers = sum(f"{name}{suffix}" in there for suffix in suffixes)
        found.append(_Submitted(name, job.job_id or "", job.rejection, workers))
    return found


async def _forget(farm: JobQueueCluster, name: str) -> None:
    """Drop a job that has ended: the farm then submits another one in its place."""
    if name in farm.workers:
        await farm.workers.pop(name).close()
