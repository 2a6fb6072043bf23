"""What a batch system says of the jobs that this run has submitted."""

import json
import logging
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

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
