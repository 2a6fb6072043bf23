"""Models without a density: what a calibrated set gets from their ONNX files."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.calibrators.estimates import OnnxFile, PointModel, QuantileModel
from pipeline.formats.calibrated_set import Functionals, describe_columns
from pipeline.formats.columns import Target
from pipeline.formats.files import sha256_of

TARGET = Target(name="gain", numerator="raw", denominator="true", calibrated="corrected")
RANGES = {"depth": (0.0, 1.0)}


@pytest.fixture
def rows():
    rng = np.random.default_rng(4)
    return {"raw": rng.uniform(1, 9, 50), "depth": rng.uniform(-0.5, 1.5, 50)}


def _model(folder, output, weight, rank):
    """features [row, 2] @ weight [2, outputs], for rank 1 without the last axis."""
    nodes = [helper.make_node("MatMul", ["features", "weight"], ["product"])]
    constants = {"weight": np.array(weight, np.float32)}
    if rank == 1:
        constants["shape"] = np.array([-1])
        nodes.append(helper.make_node("Reshape", ["product", "shape"], [output]))
    else:
        nodes.append(helper.make_node("Identity", ["product"], [output]))
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 2])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    return OnnxFile(folder / "model.onnx", sha256_of(folder / "model.onnx"), ("raw", "depth"))


def test_a_point_model_gives_central_and_calibrated_value_only(tmp_path, rows):
    model = PointModel(_model(tmp_path, "response", [[0.5], [0.1]], 1), TARGET, RANGES)
    answers = model.calibrate(rows)
    assert tuple(answers) == model.columns == ("gain", "corrected", "in_domain")
    gain = 0.5 * rows["raw"] + 0.1 * rows["depth"]
    np.testing.assert_allclose(answers["gain"], gain, rtol=1e-6)
    np.testing.assert_allclose(answers["corrected"], rows["raw"] / gain, rtol=1e-6)
    expected = (rows["depth"] >= 0) & (rows["depth"] <= 1)
    np.testing.assert_array_equal(answers["in_domain"], expected)
    assert (model.functionals, model.scores) == (Functionals("point", None, None), ())


def test_quantiles_are_of_log10_and_do_not_cross(tmp_path, rows):
    # the middle output is the largest for depth > 0
    file = _model(tmp_path, "quantiles", [[0.0, 0.0, 0.01], [0.1, 0.5, 0.3]], 2)
    model = QuantileModel(file, TARGET, RANGES, (0.025, 0.5, 0.84))
    answers = model.calibrate(rows)
    assert set(answers) == set(model.columns)
    raw, depth = rows["raw"], rows["depth"]
    logs = np.sort([0.1 * depth, 0.5 * depth, 0.01 * raw + 0.3 * depth], axis=0)
    assert (logs[1] != 0.5 * depth).any()
    for name, log in zip(("q025", "median", "q84"), logs, strict=True):
        np.testing.assert_allclose(answers[name], 10**log, rtol=1e-5)
    np.testing.assert_array_equal(answers["gain"], answers["median"])
    np.testing.assert_allclose(answers["corrected"], raw / 10 ** logs[1], rtol=1e-5)
    assert model.functionals.central == "median"
    described = [column.name for column in describe_columns(TARGET, model.columns)]
    assert tuple(described) == ("gain", "corrected", "median", "q025", "q84", "in_domain")
