"""Real, fully simulated ATLAS clusters through the shipped study."""

import json
from pathlib import Path

import pytest

from jobs.cli import main

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT.parent / "shared" / "data" / "atlas_clusters.root"

pytestmark = [
    pytest.mark.skipif(not SAMPLE.exists(), reason=f"{SAMPLE.name} is not at hand"),
    pytest.mark.filterwarnings("default"),  # Ray's own
]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """The study on the whole sample, without the report."""
    folder = tmp_path_factory.mktemp("atlas")
    words = [
        str(ROOT / "configs/atlas_sample.yaml"),
        f"dataset.inputs=[{SAMPLE}]",
        f"output={folder}",
        "dask.workers=2",
        "ray.address=none",
    ]
    for job in ("ingest", "train", "calibrate", "evaluate"):
        assert main([job, *words]) == 0
    return folder


def test_the_cut_flow_counts_every_cluster(output):
    manifest = json.loads((output / "dataset/manifest.json").read_text())
    flow = manifest["cut_flow"]
    assert flow[0]["before"] == 10_407
    rules = {step["rule"]: step["before"] - step["after"] for step in flow}
    assert rules["finite values"] == 0
    assert rules["cluster_ENG_CALIB_TOT > 0.3"] == 0  # the sample's own selection
    assert rules["cluster_CENTER_LAMBDA > 0"] == 7
    (floor,) = manifest["floors"]
    assert floor["column"] == "cluster_SECOND_TIME"
    assert 0.2 < floor["rows"] / flow[-1]["after"] < 0.6
    rows = sum(part["rows"] for part in manifest["parts"])
    assert rows == flow[-1]["after"]


def test_the_network_improves_what_can_be_improved(output):
    summary = json.loads((output / "metrics/summary.json").read_text())
    assert summary["bnn.resolution_ratio_to_em.low"] <= 0.95
    assert summary["bnn.resolution_ratio_to_em.high"] <= 1.05
    for region in ("low", "high"):
        assert summary[f"bnn.nll.{region}"] < summary[f"histogram.nll.{region}"]
    assert not any(key.startswith("oracle") for key in summary)
