"""One writer at a time: who gets the lock, and when it is taken from a dead one."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from pipeline.formats import lock
from pipeline.formats.errors import UserError
from pipeline.formats.lock import DEAD_SECONDS, LockLostError, holding


@pytest.fixture
def place(tmp_path):
    """An output folder, and where its lock is."""
    return tmp_path / "out", tmp_path / ".lock-out"


def _leave(path, content, *, age=0.0):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    os.utime(path, (time.time() - age,) * 2)


def _dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_it_is_there_while_it_is_held_and_gone_at_the_end(place):
    folder, path = place
    with holding(folder) as held:
        owner = json.loads(path.read_text())
        assert (owner["pid"], owner["host"]) == (os.getpid(), socket.gethostname())
        held.check()
    assert list(folder.parent.iterdir()) == []
    with pytest.raises(RuntimeError, match="broken"), holding(folder):
        raise RuntimeError("broken")
    assert list(folder.parent.iterdir()) == []


def test_a_second_holder_is_refused_and_told_by_whom(place):
    folder, path = place
    with holding(folder) as held:
        with pytest.raises(UserError) as caught, holding(folder):
            pass
        held.check()
    assert str(caught.value) == (
        f"{folder}: process {os.getpid()} on {socket.gethostname()} is writing it; wait until it "
        f"has ended, or set another output (the lock is {path})"
    )


def test_the_lock_of_a_dead_process_is_taken_over_at_once(place):
    folder, path = place
    _leave(path, {"host": socket.gethostname(), "pid": _dead_pid(), "lock": "1"})
    with holding(folder) as held:
        held.check()
    assert list(folder.parent.iterdir()) == []


@pytest.mark.parametrize(
    "owner", [{"host": "elsewhere", "pid": 1, "lock": "1"}, "", '{"host": "el']
)
def test_the_lock_of_another_host_or_half_a_lock_is_taken_over_when_its_heart_is_silent(
    place, owner
):
    folder, path = place
    _leave(path, owner, age=DEAD_SECONDS - 20)
    with pytest.raises(UserError, match="is writing it"), holding(folder):
        pass
    _leave(path, owner, age=DEAD_SECONDS + 5)
    with holding(folder) as held:
        held.check()
    assert list(folder.parent.iterdir()) == []


def test_a_living_process_of_this_host_that_is_silent_for_long_loses_its_lock(place):
    folder, path = place
    _leave(path, {"host": socket.gethostname(), "pid": os.getpid(), "lock": "1"}, age=300)
    with holding(folder):
        pass


def test_after_a_take_over_the_first_owner_leaves_all_as_it_is(place):
    folder, path = place
    other = json.dumps({"host": "elsewhere", "pid": 1, "lock": "2"})
    with holding(folder) as held:
        path.write_text(other)
        with pytest.raises(LockLostError, match="taken over by another process"):
            held.check()
    assert path.read_text() == other  # the other's lock stays


def test_the_heart_beats(place, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    folder, path = place
    with holding(folder):
        os.utime(path, (0, 0))
        end = time.monotonic() + 20
        while path.stat().st_mtime < 1 and time.monotonic() < end:
            time.sleep(0.01)
        assert path.stat().st_mtime > time.time() - 60


def test_of_many_at_once_one_gets_a_dead_lock(place):
    folder, path = place
    _leave(path, {"host": socket.gethostname(), "pid": _dead_pid(), "lock": "1"})
    entered, won, lost, gate = [], [], [], threading.Barrier(8)

    def compete():
        gate.wait()
        try:
            with holding(folder) as held:
                entered.append(1)
                ended.wait(20)
                held.check()
                won.append(1)
        except (UserError, LockLostError):  # at once, or when the first two hinder each other
            lost.append(1)

    ended = threading.Event()
    threads = [threading.Thread(target=compete) for _ in range(8)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 20
    while len(entered) + len(lost) < 8 and time.monotonic() < end:
        time.sleep(0.01)
    ended.set()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    assert list(folder.parent.iterdir()) == []
