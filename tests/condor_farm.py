"""A personal HTCondor pool on loopback, for tests: of an ordinary user, in a folder of its own."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
# HTCondor runs no jobs of root.
IS_POSSIBLE = os.geteuid() != 0 and shutil.which("condor_master", path=PATH) is not None
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


class Condor:
    """Daemons that were started here, and only these are ended."""

    kind = "htcondor"
    hold = ("hold = True",)
    hold_reason = "2 HELD (submitted on hold at user's request), such as "

    def __init__(self, folder: Path):
        self.folder = folder
        self.configuration = folder / "condor_config"
        for name in ("log", "spool", "execute"):
            (folder / name).mkdir()
        self.configuration.write_text(CONFIGURATION.format(folder=folder))
        self._master: subprocess.Popen | None = None

    def variables(self) -> dict[str, str]:
        return {"CONDOR_CONFIG": str(self.configuration)}

    def start(self) -> None:
        program = shutil.which("condor_master", path=PATH)
        with (self.folder / "master.log").open("w") as log:
            self._master = subprocess.Popen(
                [str(program), "-f"], env=os.environ | self.variables(), stdout=log, stderr=log
            )
        end = time.monotonic() + 60
        while "8" not in self.command("condor_status", "-af", "TotalCpus"):
            if time.monotonic() > end or self._master.poll() is not None:
                raise RuntimeError(f"HTCondor does not start; see {self.folder}")
            time.sleep(0.2)

    def stop(self) -> None:
        self.command("condor_rm", "-all")
        if self._master is not None:
            self._master.send_signal(signal.SIGQUIT)  # fast
            self._master.wait(60)

    def states(self) -> dict[str, str]:
        """Of all jobs by number, the ended ones among them."""
        jobs = []
        for command in ("condor_q", "condor_history"):
            told = self.command(command, "-json", "-attributes", "ClusterId,ProcId,JobStatus")
            jobs += json.loads(told or "[]")
        return {f"{job['ClusterId']}.{job['ProcId']}": STATES[job["JobStatus"]] for job in jobs}

    def cancel(self, number: str) -> None:
        self.command("condor_rm", number)

    def command(self, *words: str) -> str:
        """What a command prints; nothing if it fails."""
        done = subprocess.run(
            words,
            env=os.environ | self.variables(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.stdout if done.returncode == 0 else ""
