"""Fixtures that several test files share."""

import json
import logging
from contextlib import nullcontext

import pytest
from toy_detector import FAST
from toy_package import install

from jobs import ingest
from jobs.cli import main
from jobs.farm.dask import open_farm
from jobs.sites import DaskSettings


@pytest.fixture(autouse=True)
def _quiet_loggers(caplog):
    """A job configures the root logger, an open farm pytest's handler; give back what was set."""
    caplog.handler.setLevel(logging.NOTSET)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def job_log():
    """What a job and its workers say, as it comes; an open farm dims pytest's own handler."""
    messages, handler = [], logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    loggers = {name: logging.getLogger(name) for name in ("jobs", "pipeline")}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield messages
    for name, logger in loggers.items():
        logger.removeHandler(handler)
        logger.setLevel(levels[name])


@pytest.fixture(scope="session")
def toy_package(tmp_path_factory):
    """A folder with another package that adds to the tables, as pip installs it."""
    return install(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def client():
    """A farm of two processes for the whole session."""
    with open_farm(DaskSettings(workers=2)) as farm:
        yield farm


@pytest.fixture
def shared_farm(client, monkeypatch):
    """Ingest runs on the session's farm, which saves the start of one of its own."""
    monkeypatch.setattr(ingest, "open_farm", lambda _: nullcontext(client))
    return client


@pytest.fixture(scope="session")
def simulated_study(tmp_path_factory):
    """A simulated study with two models, of all features and of four."""
    folder = tmp_path_factory.mktemp("simulated_study")
    some = ["clusterE", "clusterEta", "nPrimVtx", "avgMu"]
    study = {
        "name": "simulated",
        "output": "out",
        "simulate": {"num_clusters": 4000, "clusters_per_file": 4000},
        "models": {"full": FAST, "four": {**FAST, "features": some}},
        "dask": {"workers": 1},
        "ray": {"address": "none"},
    }
    (folder / "study.json").write_text(json.dumps(study))
    for job in ("simulate", "ingest", "train"):
        assert main([job, str(folder / "study.json")]) == 0
    return folder / "out"
