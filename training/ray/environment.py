"""What surrounds Ray in this process and in its workers: environment, token, signals, ownership."""

import os
import secrets
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path

from pipeline.formats.errors import UserError

LOCAL = "local"
POLL_SECONDS = 0.2
AUTH_MODE = "RAY_AUTH_MODE"

_DRIVER = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(POLL_SECONDS),  # 2 s by default, paid at each end
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
_WORKERS = {  # glibc would give each activation back to the kernel, 20 % of a step
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
}


def worker_environment(address: str, interface: str | None = None) -> dict[str, str]:
    """Environment of the workers.

    Those of a local Ray talk over the loopback interface only, others over the one that is named;
    without a name each takes the interface of its own host name.
    """
    if address == LOCAL:
        interface = "lo0" if sys.platform == "darwin" else "lo"
    if interface is None:
        return dict(_WORKERS)
    return _WORKERS | {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}


@contextmanager
def ray_environment(address: str) -> Iterator[None]:
    """Ray's settings, which it takes from the environment only.

    A local Ray asks for a token unless the environment says otherwise; so nothing is said here,
    and what somebody else has switched off does not count.
    """
    before = {key: os.environ.get(key) for key in (*_DRIVER, AUTH_MODE)}
    os.environ.update(_DRIVER)
    if address == LOCAL and before[AUTH_MODE] != "token":
        os.environ.pop(AUTH_MODE, None)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextmanager
def own_signals() -> Iterator[None]:
    """Keep this process's signal handlers, which Ray replaces when it starts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ensure_token() -> None:
    """Make sure that a token guards Ray and that only its owner can read it.

    An existing token keeps its content; a token given in the environment is used as it is.
    """
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        return
    path = Path.home() / ".ray" / "auth_token"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        path.chmod(0o600)
        return
    with os.fdopen(file, "w", encoding="utf-8") as opened:
        opened.write(secrets.token_hex(32))


def choose_token(path: str | None) -> None:
    """Let Ray, which reads it once in a process, find the token of a cluster and send it.

    Args:
        path: Of the file; None: where Ray looks by itself.

    Raises:
        UserError: Others can read the file, or it is missing.
    """
    if path is not None:
        _refuse_readable(Path(path))
        os.environ["RAY_AUTH_TOKEN_PATH"] = path
    is_there = (Path.home() / ".ray" / "auth_token").exists()
    if is_there or {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ[AUTH_MODE] = "token"


def _refuse_readable(path: Path) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        msg = f"ray.token: {path}: {error.strerror}"
        raise UserError(msg) from None
    if mode & 0o077:
        msg = (
            f"ray.token: {path} has mode {mode:o}, so others can read it and run commands in your "
            f"name; chmod 600 {path}"
        )
        raise UserError(msg)


class OwnerChanged:
    """Tells, looking at most once per poll interval, whether another fit, or none, owns a run."""

    def __init__(self, path: Path, owner: str) -> None:
        self.path = path
        self.owner = owner
        self.changed = False
        self.looked_at = time.monotonic()

    def __call__(self) -> bool:
        """Whether another run owns the study by now, so that the training should stop."""
        if time.monotonic() - self.looked_at > POLL_SECONDS:
            self.looked_at = time.monotonic()
            try:
                self.changed = self.path.read_text(encoding="utf-8") != self.owner
            except FileNotFoundError:
                self.changed = True
        return self.changed


_SHARED: ContextVar[ExitStack | None] = ContextVar("shared Ray", default=None)


@contextmanager
def sharing_ray() -> Iterator[None]:
    """Within the block trainings of this process share one Ray of their own, with all its CPUs.

    It is started by the first that asks for one: to start Ray takes longer than a small training.
    """
    with ExitStack() as ends:
        token = _SHARED.set(ends)
        try:
            yield
        finally:
            _SHARED.reset(token)


def shared_sessions() -> ExitStack | None:
    """What ends the sessions that are shared now; None outside such a block."""
    return _SHARED.get()
