"""Ray nodes on this machine, started by tests, each with its own processes that can be killed."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from daemons import free_ports

RAY = Path(sys.executable).parent / "ray"
ROOT = Path(__file__).parents[2]


class RayNodes:
    """A head with one CPU and nodes with one CPU each, guarded by a token in a file of mode 600."""

    def __init__(self, folder: Path):
        self.folder = folder  # short: Ray's sockets lie below it
        self.token = folder / "token"
        self.token.touch(mode=0o600)
        self.token.write_text(secrets.token_hex(32))
        self._port, self._dashboard = free_ports(2)
        self._nodes: list[subprocess.Popen] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._dashboard}"

    @property
    def gcs_address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def environment(self) -> dict[str, str]:
        """That of a user who has the token and nothing else of Ray's."""
        others = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        return others | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "HOME": str(self.folder),
        }

    def start_head(self) -> None:
        self._start(
            *["--head", "--node-ip-address=127.0.0.1", f"--port={self._port}"],
            *["--dashboard-host=127.0.0.1", f"--dashboard-port={self._dashboard}"],
        )
        _wait(self._answers, self._nodes[0])

    def start_node(self, hidden: Path | None = None) -> subprocess.Popen:
        """Another node, under an address of its own; as root one that does not see a folder."""
        number = len(self._nodes) + 1
        words = [f"--address={self.gcs_address}", f"--node-ip-address=127.0.0.{number}"]
        hide = f'mount -t tmpfs none {hidden} && exec "$@"'
        return self._start(*words, before=["unshare", "-m", "sh", "-c", hide, ""] if hidden else [])

    def has_joined(self, node: subprocess.Popen) -> bool:
        log = self.folder / f"node-{self._nodes.index(node)}.log"
        return "Ray runtime started" in log.read_text()

    def kill_node(self, node: subprocess.Popen) -> None:
        """As if the machine were switched off."""
        for process in self._processes(node):
            process.kill()
        node.wait()

    def processes(self) -> list[psutil.Process]:
        return [each for node in self._nodes for each in self._processes(node)]

    def stop(self) -> None:
        processes = self.processes()
        for node in self._nodes:
            node.terminate()
        for node in self._nodes:
            try:
                node.wait(20)
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()
        _, alive = psutil.wait_procs(processes, 5)
        for process in alive:
            process.kill()

    def log(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in self.folder.glob("node-*.log"))

    def _start(self, *words: str, before: Sequence[str] = ()) -> subprocess.Popen:
        agents = [
            f"--{name}-port={port}"
            for name, port in zip(
                ("dashboard-agent-grpc", "dashboard-agent-listen", "metrics-export"),
                free_ports(3),
                strict=True,
            )
        ]
        # of its own, as on a machine of its own: nodes that share one delete each other's code
        place = f"--temp-dir={self.folder / str(len(self._nodes))}"
        size = [place, "--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats"]
        with (self.folder / f"node-{len(self._nodes)}.log").open("w") as log:
            node = subprocess.Popen(
                [*before, str(RAY), "start", "--block", *size, *agents, *words],
                env=self.environment(),
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        self._nodes.append(node)
        return node

    def _processes(self, node: subprocess.Popen) -> list[psutil.Process]:
        try:
            root = psutil.Process(node.pid)
            return [*root.children(recursive=True), root]
        except psutil.NoSuchProcess:
            return []

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._dashboard), timeout=1).close()
        except OSError:
            return False
        return True


def _wait(claim, process: subprocess.Popen, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > end or process.poll() is not None:
            raise RuntimeError("the Ray node does not start")
        time.sleep(0.1)
