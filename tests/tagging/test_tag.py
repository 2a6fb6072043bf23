"""The job `tag` on a small simulated sample: what it writes, keeps and refuses."""

import json
from contextlib import nullcontext

import numpy as np
import pyarrow.compute as pc
import pytest

from jobs import calibrate, simulate, tag
from jobs.cli import main
from jobs.study import load_study
from jobs.tags import tag_tables
from pipeline.formats.calibrated_set import LABEL, TagManifest, read_labels
from pipeline.formats.card import read_card
from pipeline.formats.manifest import MANIFEST, read_manifest, read_part
from pipeline.report.figures import tagging
from pipeline.report.panel import house_style
from pipeline.report.settings import ReportSettings
from pipeline.report.study_data import Scene
from training.data.training_data import open_split, read_training_data

SMALL = {
    "kind": "dnn",
    "hidden": [12, 12],
    "output": "log10",
    "stages": [{"epochs": 4, "leakiness": 0.05}, {"epochs": 2}],
    "batch_rows": 512,
    "optimizer": {"learning_rate": 3e-3},
}


@pytest.fixture(scope="module")
def study(client, tmp_path_factory):
    """A study that is simulated, ingested and tagged; the path of its file."""
    folder = tmp_path_factory.mktemp("tagged")
    path = folder / "study.json"
    path.write_text(
        json.dumps({
            "name": "tagged",
            "output": "out",
            "simulate": {"num_clusters": 12_000, "clusters_per_file": 4_000},
            "dataset": {
                "rows_per_part": 4_000,
                "drop_tagged": True,
                "split": {"train": 0.5, "validation": 0.2, "test": 0.3},
            },
            "tag": {
                "label": {"regression": "first"},
                "ordinary_loss": 0.1,
                "model": {"hidden": [16], "epochs": 6, "batch_rows": 512},
            },
            "models": {"first": SMALL, "second": SMALL},
            "ray": {"address": "none"},
        })
    )
    with pytest.MonkeyPatch.context() as patch:
        for job in (simulate, tag, calibrate):
            patch.setattr(job, "open_farm", lambda _: nullcontext(client))
        patch.setattr("jobs.ingest.open_farm", lambda _: nullcontext(client))
        for job in ("simulate", "ingest", "tag"):
            assert main([job, str(path)]) == 0
        yield path


def columns(folder, manifest, names, split=None):
    parts = manifest.parts if split is None else manifest.parts_of(split)
    tables = [read_part(folder, part, names) for part in parts]
    arrays = [[table[name].to_numpy(zero_copy_only=False) for table in tables] for name in names]
    return [np.concatenate(pieces) for pieces in arrays]


def test_tags_lie_beside_all_rows_and_follow_from_the_score(study):
    out = study.parent / "out"
    dataset = read_manifest(out / "dataset")
    tags = TagManifest.load(out / "tags" / MANIFEST, made_by="tag")
    assert [part.rows for part in tags.parts] == [part.rows for part in dataset.parts]
    (ids,) = columns(out / "dataset", dataset, ["cluster_id"])
    beside, score, tagged = columns(out / "tags", tags, ["cluster_id", "score", "is_tagged"])
    np.testing.assert_array_equal(beside, ids)
    np.testing.assert_array_equal(tagged, score > np.float32(tags.threshold))
    assert 0 < score.min() < score.max() < 1
    assert tags.rule == "response > 2 and response > 1.5 x that of first"
    assert read_card(out / "tag" / "model").density == "categorical"


def test_ordinary_validation_clusters_are_lost_as_stated(study):
    out = study.parent / "out"
    tags = TagManifest.load(out / "tags" / MANIFEST, made_by="tag")
    paths = {part.path for part in tags.parts if part.split == "validation"}
    labels = read_labels(out / "tag" / "labels")
    found = []
    for path in sorted(paths):
        label = read_part(out / "tag" / "labels", labels.by_path[path])[LABEL].to_numpy()
        tagged = read_part(out / "tags", tags.by_path[path])["is_tagged"].to_numpy(
            zero_copy_only=False
        )
        found.append(tagged[label == 0])
    share = np.concatenate(found).mean()
    assert 0.098 < share <= 0.1
    assert tags.figures["loss.label"] == pytest.approx(0.1, abs=0.02)
    best = tags.figures["auc.exact_component.component"]
    assert 0.6 < tags.figures["auc.tagger.component"] < best + 0.05
    for name in ("rates", "roc", "position"):
        assert (out / "tags" / f"{name}.parquet").stat().st_size == tags.tables[name]


def test_labels_are_those_of_the_first_pass(study):
    out = study.parent / "out"
    dataset, labels = read_manifest(out / "dataset"), read_labels(out / "tag" / "labels")
    (response,) = columns(out / "dataset", dataset, ["response"])
    label, predicted = columns(out / "tag" / "labels", labels, ["label", "predicted"])
    np.testing.assert_array_equal(label, response > np.maximum(2.0, 1.5 * predicted))
    assert 0.01 < label.mean() < 0.2
    rows = read_training_data(out / "dataset", None, labels=out / "tag" / "labels").train
    first = len(rows)
    np.testing.assert_array_equal(rows.target_N.numpy(), label[:first])


def test_streamed_labels_are_those_in_memory(study):
    out = study.parent / "out"
    dataset, labels = read_manifest(out / "dataset"), out / "tag" / "labels"
    given = (out / "dataset", dataset, dataset.features, "validation")
    whole, streamed = (
        open_split(*given, memory_mib, labels=labels, targets=()) for memory_mib in (None, 0.05)
    )
    pieces = [piece.target_N for piece in streamed.slabs(0, 1)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole.target_N.numpy())


def test_untagged_dataset_is_what_is_not_tagged(study):
    out = study.parent / "out"
    dataset, untagged = read_manifest(out / "dataset"), read_manifest(out / "untagged")
    tags = TagManifest.load(out / "tags" / MANIFEST, made_by="tag")
    for part in untagged.parts:
        source = next(p for p in dataset.parts if p.path == part.path)
        keep = pc.invert(read_part(out / "tags", tags.by_path[part.path])["is_tagged"])
        assert read_part(out / "untagged", part).equals(
            read_part(out / "dataset", source).filter(keep)
        )
    step = untagged.cut_flow[-1]
    left = 12_000 - int(columns(out / "tags", tags, ["is_tagged"])[0].sum())
    assert (step.rule, step.before, step.after) == ("not tagged", 12_000, left)
    (energy,) = columns(out / "untagged", untagged, ["clusterE"], "train")
    logs = np.log10(energy.astype(np.float64))
    found = untagged.statistics["clusterE"]
    assert found.count == len(energy)
    assert (found.log10_mean, found.log10_std) == pytest.approx((logs.mean(), logs.std()))
    assert found.maximum == energy.max()
    assert found.log10_mean != dataset.statistics["clusterE"].log10_mean


def test_models_are_trained_and_calibrated_without_tagged_rows(study):
    out = study.parent / "out"
    assert main(["train", str(study)]) == 0
    assert main(["calibrate", str(study)]) == 0
    dataset, untagged = read_manifest(out / "dataset"), read_manifest(out / "untagged")
    assert read_card(out / "models/first").data_fingerprint == dataset.fingerprint
    assert read_card(out / "models/second").data_fingerprint == untagged.fingerprint
    for name in ("first", "second", "oracle"):
        folder = out / "calibrated" / name
        record = json.loads((folder / MANIFEST).read_text())
        assert sum(part["rows"] for part in record["parts"]) == untagged.rows_of("test")


def test_a_second_run_keeps_everything(study, capsys):
    before = {p: p.stat().st_mtime_ns for p in (study.parent / "out").rglob("*") if p.is_file()}
    assert main(["tag", str(study)]) == 0
    told = capsys.readouterr().err
    for stage in ("train/first", "tag", "tag/untagged"):
        assert f"{stage}: kept, " in told
    assert [p for p, stamp in before.items() if p.stat().st_mtime_ns != stamp] == []


@pytest.mark.parametrize(
    ("job", "words", "message"),
    [
        ("train", ["tag.ordinary_loss=0.2"], "run `topocal tag` again"),
        ("calibrate", ["models.first.width=0.2"], "run `topocal tag` again"),
        (
            "tag",
            ["tag.label=null", "tag.label={kind: column, column: nope}"],
            "the dataset has no column nope",
        ),
        ("tag", ["tag.axes={x: {column: nope}}"], "tag.axes.x: the dataset has no column nope"),
        ("tag", ["tag=null", "dataset.drop_tagged=false"], "the study has no section tag"),
        ("tag", ["tag.label.regression=third"], "the study has no model third"),
        ("calibrate", ["calibrate.models={second: OUT/tag/model}"], "a tagger calibrates nothing"),
    ],
)
def test_what_does_not_fit_is_refused(study, capsys, job, words, message):
    words = [word.replace("OUT", str(study.parent / "out")) for word in words]
    assert main([job, str(study), *words]) == 2
    assert message in capsys.readouterr().err


def test_report_shows_the_tagger_beside_the_exact_probability(study):
    loaded = load_study([str(study)], [])
    dataset = read_manifest(study.parent / "out/dataset")
    tables = tag_tables(loaded, dataset)
    scene = Scene(tables, ReportSettings(), dataset.target, "Simulation")
    figures = {row["figure"]: row["value"] for row in tables["tag"].to_pylist()}
    told = " ".join(tagging.texts(scene))
    for truth in ("label", "component"):
        assert f"{figures[f'auc.tagger.{truth}']:.4f}" in told
        assert f"{figures[f'auc.exact_{truth}.{truth}']:.4f}" in told
    with house_style():
        panels = [
            *tagging.rate_panels(scene),
            *tagging.curve_panels(scene),
            *tagging.position_panels(scene),
        ]
    names = {panel.name for panel in panels}
    assert {"tag-rate-mu", "tag-rate-N_PV", "tag-rate-f_emc", "tag-rate-c"} < names
    assert {"tag-curve-label", "tag-curve-component", "tag-position"} < names
