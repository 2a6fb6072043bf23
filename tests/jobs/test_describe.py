import json

import pytest
from toy_detector import DATASET, FAST, toy_columns, write_tree

from jobs.cli import main


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """A toy study with a dataset, from which a file is missing, and a model."""
    folder = tmp_path_factory.mktemp("describe")
    write_tree(folder / "a.root", toy_columns(3_000), tree="Hits")
    (folder / "b.root").write_text("no ROOT file")
    study = {
        "name": "toy",
        "output": "out",
        "dataset": {**DATASET, "inputs": ["a.root", "b.root"], "on_error": "skip"},
        "models": {"net": FAST},
        "dask": {"workers": 1},
        "ray": {"address": "none"},
    }
    (folder / "study.json").write_text(json.dumps(study))
    for job in ("ingest", "train"):
        assert main([job, str(folder / "study.json")]) == 0
    return folder / "out"


def test_a_dataset_is_told_as_tables(output, capsys):
    assert main(["describe", str(output)]) == 0
    told = capsys.readouterr().out
    for words in (
        "from 1 files, 1 pieces are missing",
        "0.05 < width < 0.95",
        "Statistics of 1,",
        "a.root",
        "b.root: cannot be read",
        "log10_standard",
    ):
        assert words in told


def test_a_model_is_told_as_tables(output, capsys):
    assert main(["describe", str(output / "models/net"), "--verify"]) == 0
    told = capsys.readouterr().out
    for words in (
        "net (bnn)",
        "scale = e_raw / e_true",
        "0.05 < width < 0.95",
        "depth >= 10",
        "validation_nll",
        "arXiv 2412.04370",
        "verified: 4 files",
    ):
        assert words in told


def test_checksums_are_recomputed(output, capsys):
    dataset = output / "dataset"
    assert main(["describe", str(dataset), "--verify"]) == 0
    assert "verified: 3 parts" in capsys.readouterr().out
    part = dataset / "split=test/part-00000.parquet"
    content = part.read_bytes()
    part.write_bytes(content[:-9] + b"?" + content[-8:])
    assert main(["describe", str(dataset), "--verify"]) == 2
    told = capsys.readouterr().err
    assert "split=test/part-00000.parquet has other contents" in told
    part.write_bytes(content)


def test_what_is_no_output_is_named(tmp_path, capsys):
    (tmp_path / "study.yaml").touch()
    for path in (tmp_path, tmp_path / "study.yaml"):
        assert main(["describe", str(path)]) == 2
        assert "manifest.json: not found" in capsys.readouterr().err
