"""A dataset, models and calibrated sets that commit 604f040 wrote are read on.

`old_files/` was made by `topocal simulate`, `ingest`, `train` and `calibrate` of its study there.
"""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs import calibrate, evaluate
from jobs.cli import main
from pipeline.formats.calibrated_set import CalibratedManifest
from pipeline.formats.card import read_card
from pipeline.formats.manifest import read_manifest, read_part

OLD = Path(__file__).parent / "old_files"
SETS = ("bnn", "dnn", "lcw", "oracle")


@pytest.fixture(scope="module")
def study(tmp_path_factory, client):
    """A copy of the old study, whose jobs run on the session's farm."""
    folder = tmp_path_factory.mktemp("old") / "study"
    shutil.copytree(OLD, folder)
    with pytest.MonkeyPatch.context() as patch:
        for job in (calibrate, evaluate):
            patch.setattr(job, "open_farm", lambda _: nullcontext(client))
        yield folder / "study.yaml"


def columns_of(folder):
    return {
        name: pq.read_table(folder / f"calibrated/{name}/split=test/part-00000.parquet")
        for name in SETS
    }


def test_the_dataset_is_read_with_its_checksums(study):
    manifest = read_manifest(study.parent / "files/dataset")
    assert manifest.rows_of("train") == 773
    for part in manifest.parts:
        assert len(read_part(study.parent / "files/dataset", part)) == part.rows


def test_finished_trainings_are_kept(study, job_log):
    """Their fingerprint is that of the same study today."""
    before = {name: read_card(study.parent / f"files/models/{name}") for name in ("bnn", "dnn")}
    assert main(["train", str(study)]) == 0
    assert sum("is up to date" in line for line in job_log) == 2
    after = {name: read_card(study.parent / f"files/models/{name}") for name in before}
    assert after == before


def test_calibrated_sets_are_read_and_made_again_with_the_same_values(study):
    """The CRPS of few components is exact by now; it was known to 1e-5."""
    before = columns_of(OLD / "files")
    for name in SETS:
        folder = OLD / f"files/calibrated/{name}"
        manifest = CalibratedManifest.load(folder / "manifest.json", made_by="calibrate")
        assert manifest.missing_from(folder) == []
    assert main(["calibrate", str(study)]) == 0
    for name, table in columns_of(study.parent / "files").items():
        assert table.column_names == before[name].column_names
        for column in table.column_names:
            found, expected = table[column].to_numpy(), before[name][column].to_numpy()
            near = 1e-5 if column == "crps" else 2e-6
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=near, err_msg=column)


def test_old_models_are_evaluated(study):
    assert main(["calibrate", str(study)]) == 0
    assert main(["evaluate", str(study)]) == 0
    summary = json.loads((study.parent / "files/metrics/summary.json").read_text())
    assert {"bnn.nll", "oracle.nll", "dnn.crps"} <= summary.keys()
