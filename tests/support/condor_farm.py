"""A personal HTCondor pool on loopback, for tests: of an ordinary user, in a folder of its own."""

import json
import os
import signal
from pathlib import Path

from daemons import Daemons, are_installed

# HTCondor runs no jobs of root.
IS_POSSIBLE = os.geteuid() != 0 and are_installed("condor_master")
STATES = {1: "PENDING", 2: "RUNNING", 3: "REMOVED", 4: "COMPLETED", 5: "HELD"}

CONFIGURATION = """\
RELEASE_DIR = /usr
BIN = /usr/bin
SBIN = /usr/sbin
LIB = /usr/lib/condor
LIBEXEC = /usr/libexec/condor
SHARE = /usr/share/condor
LOCAL_DIR = {folder}
LOG = {folder}/log
LOCK = {folder}/log
RUN = {folder}/log
SPOOL = {folder}/spool
EXECUTE = {folder}/execute
use ROLE : Personal
NETWORK_INTERFACE = 127.0.0.1
BIND_ALL_INTERFACES = False
SEC_DEFAULT_AUTHENTICATION_METHODS = FS
ALLOW_READ = *
ALLOW_WRITE = *
ALLOW_DAEMON = *
ALLOW_NEGOTIATOR = *
ALLOW_ADMINISTRATOR = *
# a root without mount namespaces
MOUNT_UNDER_SCRATCH =
PER_JOB_NAMESPACES = False
BASE_CGROUP =
NUM_CPUS = 8
MEMORY = 16000
SCHEDD_INTERVAL = 1
SCHEDD_MIN_INTERVAL = 1
NEGOTIATOR_INTERVAL = 1
NEGOTIATOR_CYCLE_DELAY = 1
UPDATE_INTERVAL = 2
START = True
SUSPEND = False
PREEMPT = False
KILL = False
"""


class Condor(Daemons):
    """The master, which starts and ends the others."""

    kind = "htcondor"
    hold = ("hold = True",)
    hold_reason = "2 HELD (submitted on hold at user's request), such as "
    rejected = ("universe = nonsense",)
    ends_by = signal.SIGQUIT  # fast

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.configuration = folder / "condor_config"
        for name in ("log", "spool", "execute"):
            (folder / name).mkdir()
        self.configuration.write_text(CONFIGURATION.format(folder=folder))

    def variables(self) -> dict[str, str]:
        return {"CONDOR_CONFIG": str(self.configuration)}

    def start(self) -> None:
        self.start_daemon("condor_master", "-f")
        self.wait_until(lambda: "8" in self.command("condor_status", "-af", "TotalCpus"))

    def stop(self) -> None:
        """End all jobs, then the daemons."""
        self.command("condor_rm", "-all")
        super().stop()

    def states(self) -> dict[str, str]:
        """Of all jobs by number, the ended ones among them."""
        jobs = []
        for command in ("condor_q", "condor_history"):
            told = self.command(command, "-json", "-attributes", "ClusterId,ProcId,JobStatus")
            jobs += json.loads(told or "[]")
        return {f"{job['ClusterId']}.{job['ProcId']}": STATES[job["JobStatus"]] for job in jobs}

    def cancel(self, number: str) -> None:
        self.command("condor_rm", number)
