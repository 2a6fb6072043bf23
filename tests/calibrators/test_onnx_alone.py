"""A model's ONNX file alone, as reconstruction software uses it: without this package."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from pipeline.calibrators.registry import open_calibrator
from pipeline.formats.card import read_card
from pipeline.formats.manifest import read_manifest, read_part
from pipeline.settings import CalibrateSettings

EXAMPLE = Path(__file__).parents[2] / "pipeline/apply/example/calibrate.cpp"
COMPILER = shutil.which(os.environ.get("CXX", "c++"))


@pytest.fixture(scope="module")
def card(simulated_study):
    return read_card(simulated_study / "models/full")


@pytest.fixture(scope="module")
def rows(simulated_study, card):
    """Raw features [N] of the test split."""
    manifest = read_manifest(simulated_study / "dataset")
    part = read_part(simulated_study / "dataset", manifest.parts_of("test")[0])
    return {item.name: part[item.name].to_numpy() for item in card.inputs}


@pytest.fixture(scope="module")
def features(rows):
    """The same [N, 15] in the card's order."""
    assert len(rows) == 15
    return np.stack(list(rows.values()), axis=1)


@pytest.fixture(scope="module")
def answers(simulated_study, features):
    """energy, response and sigmas [N, 5] from the file, by ONNX Runtime's Python interface."""
    path = simulated_study / "models/full/model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = ["central", "sigma_syst", "sigma_stat"]
    central, syst, stat = session.run(names, {"features": features})
    return np.stack([features[:, 0] / central, central, np.hypot(syst, stat), syst, stat], axis=1)


def test_the_file_gives_what_calibrate_gives(simulated_study, card, rows, answers):
    calibrator = open_calibrator(simulated_study / "models/full", card, CalibrateSettings())
    expected = calibrator.calibrate(rows)
    for column, name in enumerate(["energy", "response"]):
        # the graph's search has fixed iterations: 1e-4 in log10 R
        np.testing.assert_allclose(answers[:, column], expected[name], rtol=2.3e-4)
    for column, name in enumerate(["sigma_tot", "sigma_syst", "sigma_stat"], start=2):
        difference = np.abs(answers[:, column] - expected[name])
        assert (difference <= 1e-4 * expected[name] + 1e-5 * expected["mean"]).all()


def _headers():
    """The folder of ONNX Runtime's headers: as the environment or pkg-config says, else None."""
    named = os.environ.get("ONNXRUNTIME_INCLUDE")
    if named is None and shutil.which("pkg-config"):
        words = ["pkg-config", "--variable=includedir", "libonnxruntime"]
        named = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    return named if named and Path(named, "onnxruntime_cxx_api.h").is_file() else None


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The compiled example, linked with the library that the Python package brings."""
    folder, headers = tmp_path_factory.mktemp("example"), _headers()
    libraries = sorted(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
    if COMPILER is None or headers is None or not libraries:
        pytest.skip(
            "no C++ compiler, or no headers (ONNXRUNTIME_INCLUDE) or library of its runtime"
        )
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(libraries[0])
    words = [COMPILER, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", f"-isystem{headers}"]
    words += [str(EXAMPLE), "-o", str(folder / "calibrate")]
    words += [f"-L{folder}", "-lonnxruntime", f"-Wl,-rpath,{folder}"]
    built = subprocess.run(words, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder / "calibrate"


def _run(program, model, text):
    return subprocess.run(
        [program, model], input=text, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_cpp_example_gives_what_python_gives(program, simulated_study, features, answers):
    model = simulated_study / "models/full/model.onnx"
    changed = features.copy()
    changed[3, 2], changed[700, 5] = -1.0, np.nan
    lines = "".join(" ".join(f"{value:.9g}" for value in row) + "\n" for row in changed)
    done = _run(program, model, lines)
    assert (done.returncode, done.stderr) == (0, "")
    found = np.array([[float(word) for word in line.split()] for line in done.stdout.splitlines()])
    is_bad = np.zeros(len(features), dtype=bool)
    is_bad[[3, 700]] = True
    assert np.isnan(found[is_bad]).all()
    np.testing.assert_allclose(found[~is_bad], answers[~is_bad], rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "text", "status", "told"),
    [
        ("model.onnx", "1 2 3\n", 2, "line 1: 15 numbers are expected"),
        ("model.onnx", "1 " * 15 + "x\n", 2, "line 1: 15 numbers are expected"),
        ("absent.onnx", "", 1, "absent.onnx"),
    ],
)
def test_the_cpp_example_says_what_is_wrong(program, simulated_study, model, text, status, told):
    done = _run(program, simulated_study / "models/full" / model, text)
    assert done.returncode == status
    assert told in done.stderr
