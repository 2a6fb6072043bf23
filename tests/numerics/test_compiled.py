"""Kernels and their cache: an edit is compiled again, and nothing else is."""

import importlib
import pkgutil
import subprocess
import sys

import pytest
from numba.core.registry import CPUDispatcher

import pipeline
from pipeline.formats.kernel_cache import caching_kernels
from pipeline.numerics.compiled import SHARED, kernel_files


def all_kernels():
    """By name of their module: all kernels of the package."""
    names = [each.name for each in pkgutil.walk_packages(pipeline.__path__, "pipeline.")]
    for name in names:
        if "report" in name:  # draws, and compiles nothing
            continue
        for found in vars(importlib.import_module(name)).values():
            if isinstance(found, CPUDispatcher) and found.py_func.__module__ == name:
                yield name, found


def group_of(name):
    return name.split(".")[1]


def test_kernels_call_those_of_their_own_group_and_shared_ones():
    """The cache of a group is named after the files of the group, and after those of all."""
    kernels = list(all_kernels())
    assert len(kernels) > 50
    for name, caller in kernels:
        function = caller.py_func
        known = [function.__globals__.get(word) for word in function.__code__.co_names]
        for called in (each for each in known if isinstance(each, CPUDispatcher)):
            other = group_of(called.py_func.__module__)
            assert other in {group_of(name), SHARED}, f"{name} calls {called}"
        path = name.removeprefix("pipeline.").replace(".", "/")
        assert path in kernel_files(group_of(name))


class Config:
    CACHE_DIR = ""


@pytest.fixture
def package(tmp_path):
    for name in ("one", "two", "both"):
        (tmp_path / f"{name}.py").write_text(f"# {name}\n")
    return tmp_path


def folder_of(package, *names):
    """Where kernels of these files would be cached, seen by a process of its own."""
    program = (
        "import sys, pathlib; from pipeline.formats.kernel_cache import caching_kernels\n"
        "class Config: CACHE_DIR = ''\n"
        "with caching_kernels(Config, pathlib.Path(sys.argv[1]), sys.argv[2:]):\n"
        "    print(Config.CACHE_DIR)"
    )
    command = [sys.executable, "-c", program, str(package), *names]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_an_edit_changes_the_cache_of_its_group_alone(package):
    before = folder_of(package, "one", "both"), folder_of(package, "two", "both")
    (package / "one.py").write_text("# one, edited\n")
    after = folder_of(package, "one", "both"), folder_of(package, "two", "both")
    assert after[0] != before[0]
    assert after[1] == before[1]
    (package / "both.py").write_text("# both, edited\n")
    assert folder_of(package, "two", "both") != after[1]


def test_the_users_own_cache_comes_first(package, monkeypatch):
    monkeypatch.setattr(Config, "CACHE_DIR", "elsewhere")
    with caching_kernels(Config, package, ("one",)):
        assert Config.CACHE_DIR == "elsewhere"
