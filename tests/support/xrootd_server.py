"""A real XRootD server on loopback, for tests: started, killed and brought back by them."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

PROGRAM = shutil.which("xrootd")


class Server:
    """Serves the files below `<folder>/data`, once it is started.

    All users must be able to reach the folder, which holds for none of pytest's.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.port = _free_port()
        for name in ("data", "admin"):
            (folder / name).mkdir()
        (folder / "xrootd.cfg").write_text(
            f"all.export /data\noss.localroot {folder}\nall.adminpath {folder}/admin\n"
            f"all.pidpath {folder}/admin\nxrd.port {self.port}\nxrd.network nodnr\n"
        )
        for path in (folder, folder / "data", folder / "admin"):
            path.chmod(0o777)  # the server refuses to be root and becomes another user
        self._process: subprocess.Popen | None = None

    def url(self, name: str) -> str:
        return f"root://127.0.0.1:{self.port}//data/{name}"

    def start(self) -> None:
        words = [str(PROGRAM), "-c", str(self.folder / "xrootd.cfg")]
        words += ["-l", str(self.folder / "admin" / "log"), "-n", "test"]
        words += ["-R", "daemon"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            words, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 20
        while not self._answers():
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError(f"xrootd does not answer; see {self.folder / 'admin'}")
            time.sleep(0.05)

    def kill(self) -> None:
        """As a crash of the machine would end it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """Take requests and answer none."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


def _free_port() -> int:
    """A port that is free and that the system gives to nobody while the server is away."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as trial, suppress(OSError):
            trial.bind(("127.0.0.1", port))
            return port
