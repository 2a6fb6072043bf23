"""Calibrating one part: slabs, sessions and threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.calibrators import calibrate
from pipeline.calibrators.calibrate import CalibrationPlan, calibrate_part
from pipeline.calibrators.density import OnnxDensity, Summariser
from pipeline.formats.columns import Target
from pipeline.formats.files import sha256_of
from pipeline.formats.manifest import read_part
from pipeline.parquet import write_part
from pipeline.settings import SummarySettings

ROWS, NETWORKS, COMPONENTS = 5000, 4, 2
TARGET = Target(
    name="gain",
    numerator="raw",
    denominator="true",
    calibrated="corrected",
    calibrated_unit="GeV",
)


@pytest.fixture
def density(tmp_path):
    """Networks of one layer, whose outputs follow the feature `depth`."""
    rng = np.random.default_rng(1)
    columns = 3 * NETWORKS * COMPONENTS
    weight = rng.normal(0, 0.1, (1, columns)).astype(np.float32)
    bias = np.tile(np.repeat([0.0, -4.0, np.log(1 / COMPONENTS)], COMPONENTS), NETWORKS)
    constants = {
        "weight": weight,
        "bias": bias.astype(np.float32),
        "shape": np.array([-1, NETWORKS, 3 * COMPONENTS]),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["features", "weight", "bias"], ["flat"]),
            helper.make_node("Reshape", ["flat", "shape"], ["by_row"]),
            helper.make_node("Transpose", ["by_row"], ["networks"], perm=[1, 2, 0]),
        ],
        "networks",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 1])],
        [helper.make_tensor_value_info("networks", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = tmp_path / "networks.onnx"
    onnx.save(model, path)
    return OnnxDensity(path, sha256_of(path), ("depth",), (-20.0, 5.0))


@pytest.fixture
def plan(tmp_path, density):
    rng = np.random.default_rng(2)
    columns = {
        "raw": 10 ** rng.normal(1, 0.5, ROWS),
        "true": 10 ** rng.normal(1, 0.5, ROWS),
        "depth": rng.normal(0, 1, ROWS),
    }
    table = {name: values.astype(np.float32) for name, values in columns.items()}
    table["cluster_id"] = np.arange(ROWS, dtype=np.uint64)
    return CalibrationPlan(
        calibrator=Summariser(
            density=density,
            target=TARGET,
            search_range=(-1.5, 1.5),
            ranges={"depth": (-2.0, 2.0)},
            settings=SummarySettings(),
        ),
        dataset=tmp_path / "dataset",
        part=write_part(tmp_path / "dataset", "test", 0, pa.table(table)),
        folder=tmp_path / "calibrated",
        has_truth=True,
    )


def test_memory_is_that_of_a_slab_and_rows_do_not_depend_on_it(plan, monkeypatch):
    seen = []
    mixtures = OnnxDensity.of_rows

    def watched(self, columns):
        found = mixtures(self, columns)
        seen.append(found.outputs_SPN.shape[2])
        return found

    monkeypatch.setattr(OnnxDensity, "of_rows", watched)
    whole = read_part(plan.folder, calibrate_part(plan).part)
    assert max(seen) == calibrate.SLAB < ROWS == sum(seen) == whole.num_rows
    monkeypatch.setattr(calibrate, "SLAB", 333)
    again = read_part(plan.folder, calibrate_part(plan).part)
    for name in whole.column_names:
        np.testing.assert_allclose(again[name].to_numpy(), whole[name].to_numpy(), rtol=1e-6)


def test_one_session_with_one_thread_a_process(density, monkeypatch):
    opened = []
    session = onnxruntime.InferenceSession

    def counted(path, options, **others):
        opened.append((options.intra_op_num_threads, options.inter_op_num_threads))
        return session(path, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", counted)
    rows = {"depth": np.linspace(-1, 1, 50)}
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(density.of_rows, [rows] * 8))
    assert opened == [(1, 1)]
    for other in found[1:]:
        np.testing.assert_array_equal(other.outputs_SPN, found[0].outputs_SPN)
