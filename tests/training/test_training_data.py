import json

import numpy as np
import pytest
import torch
from training_fixtures import FEATURES, ROWS, TARGET, write_tiny_dataset

from pipeline.formats.errors import UserError
from pipeline.formats.manifest import MANIFEST, read_manifest, read_part
from training.data.rows import permutation
from training.data.training_data import read_training_data


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_tiny_dataset(tmp_path_factory.mktemp("dataset"))


def test_rows_are_scaled_and_in_the_order_of_the_parts(dataset):
    data = read_training_data(dataset, None)
    manifest = read_manifest(dataset)
    parts = [read_part(dataset, part) for part in manifest.parts_of("train")]
    depth = np.concatenate([part["depth"].to_numpy() for part in parts]).astype(np.float64)
    target = np.concatenate([part[TARGET.name].to_numpy() for part in parts])
    assert data.train.x_NF.shape == (ROWS["train"], len(FEATURES))
    assert data.train.x_NF.dtype == data.train.target_N.dtype == torch.float32
    expected = (depth - depth.mean()) / depth.std()
    np.testing.assert_allclose(data.train.x_NF[:, 1], expected, atol=1e-6)
    np.testing.assert_allclose(data.train.target_N, np.log10(target), atol=1e-6)
    assert len(data.validation) == ROWS["validation"]
    assert data.train.weight_N is None


def test_weights_have_mean_one(tmp_path):
    data = read_training_data(write_tiny_dataset(tmp_path, with_weights=True), None)
    assert data.train.weight_N.mean().item() == pytest.approx(1.0, rel=1e-6)
    assert data.train.weight_N.std() > 0.1


def test_named_features_come_in_the_datasets_order(dataset):
    every, some = read_training_data(dataset, None), read_training_data(dataset, ("share", "sum"))
    assert torch.equal(some.train.x_NF, every.train.x_NF[:, [0, 3]])


def test_unknown_feature_is_named(dataset):
    with pytest.raises(UserError, match="width"):
        read_training_data(dataset, ("sum", "width"))


def test_dataset_without_target_is_refused(tmp_path):
    write_tiny_dataset(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps(manifest | {"target": None}))
    with pytest.raises(UserError, match="no truth"):
        read_training_data(tmp_path, None)


def test_empty_validation_split_is_refused(tmp_path):
    write_tiny_dataset(tmp_path, rows={"train": 100})
    with pytest.raises(UserError, match="validation"):
        read_training_data(tmp_path, None)


def test_value_outside_its_transform_is_named(tmp_path):
    write_tiny_dataset(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    manifest["features"][3]["transform"] = "log10_standard"
    manifest["statistics"]["share"] |= {"log10_mean": 0.0, "log10_std": 0.0}
    manifest["features"][2]["transform"] = "log10_standard"
    manifest["statistics"]["angle"] |= {"log10_mean": 0.0, "log10_std": 1.0}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"part-00000.*angle = -"):
        read_training_data(tmp_path, None)


def test_permutation_depends_on_seed_and_epoch_alone():
    assert torch.equal(permutation(50, 1, 2), permutation(50, 1, 2))
    assert not torch.equal(permutation(50, 1, 2), permutation(50, 1, 3))
    assert not torch.equal(permutation(50, 1, 2), permutation(50, 2, 2))
    assert torch.equal(permutation(50, 1, 2).sort().values, torch.arange(50))
