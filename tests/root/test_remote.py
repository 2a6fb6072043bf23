"""Input over XRootD: from a real server on loopback that is killed and comes back."""

import functools
import re
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from ingest_fixtures import contents, make, meanwhile, receipts, study_file, wait_for, write_toys
from xrootd_server import PROGRAM, Server

from jobs import ingest
from jobs.launch import run_job
from pipeline.fold import limits, map_parts
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import read_manifest
from pipeline.root.files import Access
from pipeline.root.inspect import Wanted, inspect_file, list_inputs
from pipeline.root.layout import Layout
from pipeline.root.read import close_last, read_rows
from pipeline.root.remote import RemoteSettings, with_retries
from tests.root.test_read import CLUSTERS

needs_server = pytest.mark.skipif(
    PROGRAM is None, reason="no program xrootd (Debian: xrootd-server)"
)
SIZES = [70_000] * 6
QUICK = {"timeout": 2, "retries": 40, "backoff": 0.05}
TOLD = re.compile(r"root://\S+: .*; try (\d+) of (\d+) in")


@pytest.fixture(scope="module")
def shared():
    """A server with inputs, and the dataset that the same files give from the disk."""
    pytest.importorskip("fsspec_xrootd", reason="pip install 'topocal[xrootd]'")
    with TemporaryDirectory(prefix="topocal-xrootd-") as name:
        server = Server(Path(name))
        paths = write_toys(server.folder / "data", SIZES)
        yield server, make(server.folder, "local", paths)
        server.kill()


@pytest.fixture
def server(shared):
    """The server, alive."""
    shared[0].start()
    yield shared[0]
    shared[0].kill()


def _urls(server):
    return [server.url(f"{number}.root") for number in range(len(SIZES))]


def _dask(**remote):
    return {"workers": 2, "read_rows": 10_000, "remote": {**QUICK, **remote}}


def _retries(job_log):
    return [told for told in map(TOLD.match, job_log) if told]


@needs_server
def test_parts_from_a_server_are_those_from_the_disk(tmp_path, shared, server):
    folder = make(tmp_path, "out", _urls(server), dask=_dask())
    assert contents(folder, moved=True) == contents(shared[1], moved=True)
    assert read_manifest(folder).inputs[0].path == server.url("0.root")
    assert read_manifest(folder).inputs[0].size == read_manifest(shared[1]).inputs[0].size


@needs_server
@pytest.mark.parametrize("way", ["killed", "hung"])
def test_a_server_that_is_lost_and_comes_back(tmp_path, shared, server, job_log, way):
    folder = tmp_path / "out" / "dataset"

    def interrupt():
        wait_for(lambda: receipts(folder))
        server.kill() if way == "killed" else server.hang()
        wait_for(lambda: _retries(job_log))
        server.start() if way == "killed" else server.go_on()

    with meanwhile(interrupt):
        make(tmp_path, "out", _urls(server), dask=_dask())
    assert contents(folder, moved=True) == contents(shared[1], moved=True)
    assert {told[2] for told in _retries(job_log)} == {"41"}


@needs_server
def test_a_server_that_is_dead_for_good_ends_the_job(tmp_path, server, capsys):
    folder = tmp_path / "out" / "dataset"
    remote = {"retries": 2, "backoff": 0.05}
    path = study_file(tmp_path, "out", _urls(server), dask=_dask(**remote))

    def kill():
        wait_for(lambda: receipts(folder))
        server.kill()

    with meanwhile(kill):
        assert run_job("ingest", ingest.main, [path]) == 2
    (told,) = re.findall(r"^topocal ingest: (.*)$", capsys.readouterr().err, re.MULTILINE)
    assert re.match(r"root://127\S+/\d\.root: entries \d+ to \d+ cannot be read \(.+\)$", told)
    assert not folder.exists()
    # what was read before is kept, and the server is asked for the rest alone
    made = {path.name: path.stat().st_mtime_ns for path in receipts(folder)}
    assert made
    access = Access(remote=RemoteSettings(retries=1, backoff=0.01))
    with pytest.raises(UserError, match=r"0\.root: cannot be read \(.*Connection error\)"):
        inspect_file(server.url("0.root"), CLUSTERS, Wanted({}, (), {}), access)
    server.start()
    assert run_job("ingest", ingest.main, [path]) == 0
    assert re.search(rf"{len(made)} of 12 blocks are there", capsys.readouterr().err)


@needs_server
def test_what_a_dead_server_has_is_skipped_and_fetched_later(tmp_path, shared, server, job_log):
    folder = tmp_path / "out" / "dataset"
    changes = {"dask": _dask(retries=1), "on_error": "skip"}

    def kill():
        wait_for(lambda: receipts(folder))
        server.kill()

    with meanwhile(kill):
        make(tmp_path, "out", _urls(server), **changes)
    missing = read_manifest(folder).missing
    assert 1 <= len(missing) < 12
    assert all("cannot be read" in gap.reason and gap.start is not None for gap in missing)
    assert f"{len(missing)} pieces are missing and listed in the manifest" in "\n".join(job_log)
    server.start()
    make(tmp_path, "out", _urls(server), **changes)
    assert f"ingest: {12 - len(missing)} of 12 blocks are there from an earlier run" in job_log
    assert contents(folder, moved=True) == contents(shared[1], moved=True)


@needs_server
def test_globs_name_files_of_a_server(server, tmp_path):
    (tmp_path / "files.txt").write_text(server.url("[01].root") + "\n" + server.url("5.root"))
    assert list_inputs([server.url("*.ro*")]) == tuple(_urls(server))
    assert list_inputs([str(tmp_path / "files.txt")]) == tuple(_urls(server)[n] for n in (0, 1, 5))
    with pytest.raises(UserError, match=r"no file matches root://\S+/data/\*\.none; check"):
        list_inputs([server.url("*.none")])
    server.kill()
    with pytest.raises(UserError, match=r"data/\*\.root: cannot be listed \(.*Connection error"):
        list_inputs([server.url("*.root")], RemoteSettings(retries=1, backoff=0.01))


@needs_server
def test_a_file_that_the_server_does_not_have_is_not_waited_for(server, job_log):
    with pytest.raises(UserError, match=r"none\.root: cannot be read \(.*no such file"):
        inspect_file(server.url("none.root"), CLUSTERS, Wanted({}, (), {}), Access())
    assert not _retries(job_log)


class _Counting:
    """A limit that knows whether it is held."""

    def __init__(self):
        self.depth = self.entered = 0

    def __enter__(self):
        self.depth += 1
        self.entered += 1

    def __exit__(self, *_):
        self.depth -= 1


@needs_server
def test_every_request_is_made_within_the_limit_and_no_handle_is_left(server, monkeypatch):
    limit, requests = _Counting(), Counter()
    system = pytest.importorskip("fsspec_xrootd").XRootDFileSystem
    for name in ("_cat_file", "_cat_ranges", "_info"):
        monkeypatch.setattr(system, name, _noting(getattr(system, name), limit, requests))
    layout, access = Layout(tree="Hits"), Access(limits={f"127.0.0.1:{server.port}": limit})
    wanted = Wanted({"e_raw": "features"}, (), {})
    source = inspect_file(server.url("0.root"), layout, wanted, access)
    rows = list(read_rows(source, layout, 0, 70_000, access))
    close_last()
    assert sum(map(len, rows)) == 70_000
    assert set(requests) == {1}
    assert limit.entered == 1 + len(rows)
    (instance,) = [s for s in system._cache.values() if s.hostid.endswith(f":{server.port}")]
    assert not instance._readonly_filehandle_cache._cache


def _noting(method, limit, requests):
    @functools.wraps(method)
    async def noted(*arguments, **options):
        requests[limit.depth] += 1
        return await method(*arguments, **options)

    return noted


def _hold(number, *, access):
    def action():
        begin = time.monotonic()
        time.sleep(0.05)
        return begin, time.monotonic()

    return access.read(f"root://server//{number}", action)


def test_reads_of_one_server_are_limited_over_all_workers(client):
    access = Access(limits=limits(client, ["server"], 1))
    spans = map_parts(client, functools.partial(_hold, access=access), range(12), label="hold")
    assert all(end <= begin for (_, end), (begin, _) in pairwise(sorted(spans)))


def _fail(error, calls):
    calls.append(1)
    raise error


def test_pauses_grow_and_end(caplog):
    pauses, calls = [], []
    settings = RemoteSettings()
    action = functools.partial(_fail, OSError("[FATAL] Connection error"), calls)
    with pytest.raises(OSError, match="Connection error"):
        with_retries(action, "root://server//a", settings, pauses.append)
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]
    assert len(calls) == 9
    assert "try 9 of 9 in 60 s" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/disk/a.root", OSError("broken")),
        ("root://server//a", UserError("no tree")),
        ("root://server//a", OSError("Server responded with an error: [3010] not authorized")),
        ("root://server//a", OSError("Server responded with an error: [3011] no such file")),
        ("root://server//a", ValueError("the checksum of the data is wrong")),
    ],
)
def test_what_waiting_will_not_mend_is_tried_once(path, error):
    calls = []
    with pytest.raises(type(error)):
        with_retries(functools.partial(_fail, error, calls), path, RemoteSettings(), calls.append)
    assert len(calls) == 1
