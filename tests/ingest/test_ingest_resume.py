"""Runs that are cut short: what is left, and that the next run ends as if nothing had happened."""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from contextlib import suppress

import psutil
import pytest
from ingest_fixtures import (
    contents,
    inodes,
    make,
    receipts,
    staging_of,
    start,
    study_file,
    wait_for,
    write_toys,
)

from jobs import ingest
from jobs.launch import run_job

SIZES = [66_000] * 8  # two blocks a file, sixteen parts


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """Inputs of many parts."""
    return write_toys(tmp_path_factory.mktemp("toys"), SIZES)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, toys):
    """The files of the dataset that an undisturbed run makes."""
    return contents(make(tmp_path_factory.mktemp("whole"), "out", toys))


def test_a_killed_worker_is_replaced(tmp_path, toys, whole, shared_farm):
    folder = tmp_path / "out" / "dataset"
    pids = list(shared_farm.run(os.getpid).values())

    def kill():
        wait_for(lambda: receipts(folder))
        os.kill(pids[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    make(tmp_path, "out", toys)
    killer.join()
    assert pids[0] not in wait_for(lambda: shared_farm.run(os.getpid).values())
    assert contents(folder) == whole


@pytest.mark.usefixtures("shared_farm")
def test_a_killed_job_is_continued(tmp_path, toys, whole, job_log):
    folder = tmp_path / "out" / "dataset"
    job = start(study_file(tmp_path, "out", toys))
    wait_for(lambda: len(receipts(folder)) >= 2)
    workers = psutil.Process(job.pid).children(recursive=True)
    job.kill()
    job.communicate()
    assert psutil.wait_procs(workers, timeout=60)[1] == []  # they end by themselves
    assert not folder.exists()
    assert (tmp_path / "out/.lock-dataset").exists()
    finished = {_index(receipt) for receipt in receipts(folder)}
    before = inodes(staging_of(folder))
    make(tmp_path, "out", toys)
    assert f"ingest: {len(finished)} of 16 blocks are there from an earlier run" in job_log
    assert any("its process has died, the lock is taken over" in line for line in job_log)
    after = inodes(folder)
    assert [p for p in before if _index(p) in finished and before[p] != after[p]] == []
    assert contents(folder) == whole
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["dataset"]


def _index(path):
    return int(re.search(r"part-(\d+)", str(path))[1])


def test_a_second_run_into_the_same_output_is_refused(tmp_path, toys, whole, capsys):
    path, folder = study_file(tmp_path, "out", toys), tmp_path / "out" / "dataset"
    job = start(path)
    lock = tmp_path / "out/.lock-dataset"
    wait_for(lambda: lock.exists() and lock.read_text().endswith("}"))
    assert run_job("ingest", ingest.main, [path]) == 2
    assert (
        f"topocal ingest: {folder}: process {job.pid} on {socket.gethostname()} is writing it; "
        "wait until it has ended, or set another output"
    ) in capsys.readouterr().err
    told = job.communicate()[1]
    assert job.returncode == 0, told
    assert contents(folder) == whole


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few MiB and how to make it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a file system cannot be mounted here")
    yield (
        folder,
        lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True),
    )
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.usefixtures("shared_farm")
def test_a_full_disk_is_told_and_nothing_is_lost(small_disk, toys, whole, capsys):
    disk, enlarge = small_disk
    folder = make(disk, "out", toys[:1])
    before = contents(folder)
    path = study_file(disk, "out", toys)
    for _ in range(2):  # the second one has no room for the very first file
        assert run_job("ingest", ingest.main, [path]) == 2
        told = capsys.readouterr().err
        assert re.search(
            r"^topocal ingest: /\S+: no space left on the disk for \S+; what was finished is kept: "
            r"free some space and run again, or set another output$",
            told,
            re.MULTILINE,
        )
        assert contents(folder) == before
        _fill(disk / "filler")
    enlarge()
    assert run_job("ingest", ingest.main, [path]) == 0
    found = re.search(r"ingest: (\d+) of 16 blocks are there", capsys.readouterr().err)
    assert int(found[1]) > 2
    assert contents(folder) == whole


def _fill(path):
    with path.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
