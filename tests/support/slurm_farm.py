"""A SLURM of one node on loopback, for tests: daemons in the foreground, in a folder of its own."""

import os
import secrets
import socket
import time
from pathlib import Path

from daemons import Daemons, are_installed, free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
IS_POSSIBLE = os.geteuid() == 0 and are_installed(*PROGRAMS)

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


class Slurm(Daemons):
    """Munge, the controller and the node."""

    kind = "slurm"
    hold = ("--hold",)
    hold_reason = "2 PENDING (JobHeldUser), such as "
    rejected = ("nonsense",)

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.configuration = folder / "slurm.conf"
        folder.chmod(0o755)  # munge refuses a socket that not everybody can reach
        for name in ("state", "spool"):
            (folder / name).mkdir()
        host, ports = socket.gethostname().partition(".")[0], free_ports(2)
        self.configuration.write_text(
            CONFIGURATION.format(host=host, folder=folder, controller=ports[0], node=ports[1])
        )

    def start(self) -> None:
        """Until the node takes jobs."""
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        words = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "seed")]
        words += [f"--log-file={self.folder}/munge.log", f"--socket={self.folder}/munge.socket"]
        self.start_daemon("munged", "--foreground", *words)
        self.wait_until((self.folder / "munge.socket").exists)
        for daemon in ("slurmctld", "slurmd"):
            self.start_daemon(daemon, "-D", "-f", str(self.configuration))
        self.wait_until(lambda: "idle" in self.command("sinfo", "--noheader", "--format=%T"))

    def variables(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.configuration)}

    def states(self) -> dict[str, str]:
        """Of all jobs by number, the ended ones among them."""
        told = self.command("squeue", "--noheader", "--states=all", "--format=%i %T")
        return dict(line.split() for line in told.splitlines())

    def cancel(self, number: str) -> None:
        self.command("scancel", number)

    def stop(self) -> None:
        """End all jobs, then the daemons."""
        self.command("scancel", "--user=root")
        end = time.monotonic() + 10
        while self.command("squeue", "--noheader") and time.monotonic() < end:
            time.sleep(0.1)
        super().stop()
