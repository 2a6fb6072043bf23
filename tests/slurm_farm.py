"""A SLURM of one node on loopback, for tests: daemons in the foreground, in a folder of its own."""

import os
import secrets
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
# Debian's daemons are not on an ordinary user's path.
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
IS_POSSIBLE = os.geteuid() == 0 and all(shutil.which(name, path=PATH) for name in PROGRAMS)

# What a machine without systemd and control groups needs; the daemons listen on loopback only.
CONFIGURATION = """\
ClusterName=topocal
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=100000
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MailProg=/bin/true
KillWait=2
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000 State=UNKNOWN
PartitionName=short Nodes={host} Default=YES MaxTime=60 State=UP
"""


class Slurm:
    """Daemons that were started here, and only these are ended."""

    kind = "slurm"
    hold = ("--hold",)
    hold_reason = "2 PENDING (JobHeldUser), such as "

    def __init__(self, folder: Path):
        self.folder = folder
        self.configuration = folder / "slurm.conf"
        self._daemons: list[subprocess.Popen] = []
        self._log = ExitStack()
        folder.chmod(0o755)  # munge refuses a socket that not everybody can reach
        for name in ("state", "spool"):
            (folder / name).mkdir()
        host, ports = socket.gethostname().partition(".")[0], _free_ports(2)
        self.configuration.write_text(
            CONFIGURATION.format(host=host, folder=folder, controller=ports[0], node=ports[1])
        )

    def start(self) -> None:
        """Start munge, the controller and the node; wait until the node takes jobs."""
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        words = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "seed")]
        words += [f"--log-file={self.folder}/munge.log", f"--socket={self.folder}/munge.socket"]
        self._daemon("munged", "--foreground", *words)
        _wait((self.folder / "munge.socket").exists, self)
        for daemon in ("slurmctld", "slurmd"):
            self._daemon(daemon, "-D", "-f", str(self.configuration))
        _wait(lambda: "idle" in self.command("sinfo", "--noheader", "--format=%T"), self)

    def command(self, *words: str) -> str:
        """What a command of SLURM prints; nothing if it fails."""
        done = subprocess.run(
            words,
            env=os.environ | self.variables(),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        return done.stdout

    def variables(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.configuration)}

    def states(self) -> dict[str, str]:
        """Of all jobs by number, the ended ones among them."""
        told = self.command("squeue", "--noheader", "--states=all", "--format=%i %T")
        return dict(line.split() for line in told.splitlines())

    def cancel(self, number: str) -> None:
        self.command("scancel", number)

    def stop(self) -> None:
        """End all jobs, then the daemons, the last one started first."""
        self.command("scancel", "--user=root")
        end = time.monotonic() + 10
        while self.command("squeue", "--noheader") and time.monotonic() < end:
            time.sleep(0.1)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()
        self._log.close()

    def explain(self) -> str:
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in logs)

    def _daemon(self, name: str, *words: str) -> None:
        out = self._log.enter_context((self.folder / f"{name}.out.log").open("w"))
        program = shutil.which(name, path=PATH)
        self._daemons.append(
            subprocess.Popen(
                [str(program), *words], env=os.environ | self.variables(), stdout=out, stderr=out
            )
        )

    def is_alive(self) -> bool:
        return all(daemon.poll() is None for daemon in self._daemons)


def _wait(claim, slurm: Slurm, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > end or not slurm.is_alive():
            raise RuntimeError(f"SLURM does not start: {slurm.explain()}")
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in opened:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in opened]
