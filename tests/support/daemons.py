"""Servers that tests start in the foreground, each in a folder of its own, and end again."""

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

# Debian's daemons are not on an ordinary user's path.
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


def are_installed(*programs: str) -> bool:
    return all(shutil.which(program, path=PATH) for program in programs)


class Daemons:
    """What one service consists of; only processes that were started here are ended."""

    ends_by = signal.SIGTERM
    start_seconds = 60.0
    stop_seconds = 30.0

    def __init__(self, folder: Path):
        self.folder = folder
        self._daemons: list[subprocess.Popen] = []
        self._logs = ExitStack()

    def variables(self) -> dict[str, str]:
        """What commands and daemons find the service by."""
        raise NotImplementedError

    def start_daemon(self, program: str, *words: str) -> None:
        out = self._logs.enter_context((self.folder / f"{program}.out.log").open("w"))
        path = shutil.which(program, path=PATH)
        self._daemons.append(
            subprocess.Popen(
                [str(path), *words], env=os.environ | self.variables(), stdout=out, stderr=out
            )
        )

    def wait_until(self, claim) -> None:
        end = time.monotonic() + self.start_seconds
        while not claim():
            if time.monotonic() > end or any(d.poll() is not None for d in self._daemons):
                raise RuntimeError(f"{type(self).__name__} does not start: {self.explain()}")
            time.sleep(0.1)

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

    def stop(self) -> None:
        """The last one started first."""
        for daemon in reversed(self._daemons):
            daemon.send_signal(self.ends_by)
            try:
                daemon.wait(self.stop_seconds)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()
        self._logs.close()

    def explain(self) -> str:
        logs = sorted(path for path in self.folder.rglob("*[Ll]og") if path.is_file())
        return "\n".join(
            f"{path.name}: {path.read_text(errors='replace')[-2000:]}" for path in logs
        )


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in opened:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in opened]
