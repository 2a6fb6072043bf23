"""What is compiled beside the training is what calibrate runs."""

import importlib
import pkgutil
import subprocess
from contextlib import ExitStack

import pytest
from numba.core.dispatcher import Dispatcher

from jobs.calibrate import find_sources, plan_parts
from jobs.ingest import open_dataset
from jobs.kernels import compile_kernels, compiling_ahead
from jobs.study import load_study
from pipeline.calibrators.calibrate import calibrate_part
from pipeline.densities import gaussian_mixture
from pipeline.numerics.compiled import has_kernels


def signatures():
    """By kernel: what it has been compiled, or loaded, for in this process."""
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.iter_modules(
            gaussian_mixture.__path__, f"{gaussian_mixture.__name__}."
        )
    ]
    return {
        (module.__name__, name): set(each.signatures)
        for module in modules
        for name, each in vars(module).items()
        if isinstance(each, Dispatcher)
    }


def test_calibrate_finds_all_its_kernels(simulated_study, tmp_path):
    compile_kernels()
    before = signatures()
    assert any(before.values())
    study = load_study([str(simulated_study.parent / "study.json")], [])
    manifest = open_dataset(study)
    for source in find_sources(study, manifest):
        calibrate_part(plan_parts(study, manifest, source, folder=tmp_path / source.name)[0])
    assert signatures() == before


def test_where_there_are_kernels_no_process_is_started(monkeypatch):
    assert has_kernels("densities")  # of the test above, or of any other
    monkeypatch.setattr("subprocess.Popen", None)
    with compiling_ahead():
        pass


def test_the_process_ends_with_the_block(monkeypatch):
    monkeypatch.setattr("jobs.kernels.has_kernels", lambda _: False)
    monkeypatch.setattr("jobs.kernels.COMMAND", ("-c", "import time; time.sleep(600)"))
    popen, started = subprocess.Popen, []

    def remembered(*words, **options):
        started.append(popen(*words, **options))
        return started[-1]

    monkeypatch.setattr("subprocess.Popen", remembered)
    with ExitStack() as block:
        block.enter_context(pytest.raises(KeyboardInterrupt))
        block.enter_context(compiling_ahead())
        raise KeyboardInterrupt
    assert started[0].poll() is not None
