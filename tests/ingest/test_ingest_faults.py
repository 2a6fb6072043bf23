"""Inputs that are at fault: what the user is told, and that no earlier result is lost."""

import re
import shutil
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from ingest_fixtures import (
    contents,
    flip_basket,
    make,
    study_file,
    write_baskets,
    write_toys,
)
from toy_detector import toy_columns, write_tree

from jobs import ingest
from jobs.launch import run_job
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import read_manifest, read_part
from pipeline.ingest import write

pytestmark = pytest.mark.usefixtures("shared_farm")


def _truncated(folder):
    path = Path(write_tree(folder / "bad.root", toy_columns(5000), tree="Hits"))
    path.write_bytes(path.read_bytes()[:-30_000])


def _empty(folder):
    (folder / "bad.root").touch()


def _without_a_branch(folder):
    columns = toy_columns(50)
    del columns["depth"], columns["e_true"]
    write_tree(folder / "bad.root", columns, tree="Hits")


def _texts(folder):
    write_tree(folder / "bad.root", toy_columns(2) | {"angle": ["left", "right"]}, tree="Hits")


def _vectors(folder):
    columns = toy_columns(2) | {"angle": ak.Array([[1.0, 2.0], [3.0]])}
    write_tree(folder / "bad.root", columns, tree="Hits")


def _texts_in_a_ttree(folder):
    columns = {name: values.tolist() for name, values in toy_columns(2).items()}
    with uproot.recreate(folder / "bad.root") as file:
        file.mktree("Hits", {**dict.fromkeys(columns, "f4"), "angle": "string"})
        file["Hits"].extend(columns | {"angle": ["left", "right"]})


def _vectors_in_a_ttree(folder):
    columns = toy_columns(2) | {"angle": ak.Array([[1.0, 2.0], [3.0]])}
    with uproot.recreate(folder / "bad.root") as file:
        file.mktree("Hits", {**dict.fromkeys(columns, "f4"), "angle": "var * float64"})
        file["Hits"].extend(columns)


def _another_tree(folder):
    write_tree(folder / "bad.root", toy_columns(5), tree="Misses")


def _damaged_basket(folder):
    path = write_baskets(folder / "bad.root", toy_columns(70_000))
    flip_basket(path, "width", 1)


FAULTS = [
    (_truncated, r"cannot be read \(expected Chunk of length \d+, received \d+ bytes .+\)"),
    (_empty, r"cannot be read \(expected Chunk of length \d+, received 0 bytes .+\)"),
    (
        _without_a_branch,
        r"tree Hits lacks features depth; truth e_true; name their branches in a layout of your "
        r"own, or leave them out of the study",
    ),
    (
        _texts,
        r"column angle \(angle\) is not one number a cluster; correct its expression or level in "
        r"the layout",
    ),
    (_vectors, r"column angle \(angle\) is not one number a cluster; correct its .*"),
    (_texts_in_a_ttree, r"column angle \(angle\) is not one number a cluster; correct its .*"),
    (_vectors_in_a_ttree, r"column angle \(angle\) is not one number a cluster; correct its .*"),
    (_another_tree, r"no tree named Hits, it holds Misses; give its layout"),
    (_damaged_basket, r"entries 65536 to 70000 cannot be read \(.+\)"),
]


@pytest.mark.parametrize(("spoil", "message"), FAULTS, ids=lambda x: getattr(x, "__name__", ""))
def test_a_bad_input_is_named_and_the_old_dataset_stays(tmp_path, capsys, spoil, message):
    inputs = write_toys(tmp_path, [200, 100])
    folder = make(tmp_path, "out", inputs)
    before = contents(folder)
    spoil(tmp_path)
    bad = str(tmp_path / "bad.root")
    path = study_file(tmp_path, "out", [*inputs, bad])
    assert run_job("ingest", ingest.main, [path]) == 2
    told = re.findall(r"^topocal ingest: (.*)$", capsys.readouterr().err, re.MULTILINE)
    assert len(told) == 1
    assert re.fullmatch(re.escape(bad) + ": " + message, told[0])
    assert contents(folder) == before


@pytest.mark.parametrize("spoil", [fault[0] for fault in FAULTS if fault[0] != _damaged_basket])
def test_a_bad_input_can_be_skipped(tmp_path, job_log, spoil):
    inputs = write_toys(tmp_path, [200, 100])
    whole = contents(make(tmp_path, "whole", inputs))
    spoil(tmp_path)
    bad = str(tmp_path / "bad.root")
    folder = make(tmp_path, "out", [inputs[0], bad, inputs[1]], on_error="skip")
    (gap,) = read_manifest(folder).missing
    assert gap.path == bad
    assert gap.reason.startswith(bad)
    assert f"ingest: skipped: {gap.reason}" in job_log
    parts = {p: b for p, b in contents(folder).items() if p.startswith("split=train/part-00000")}
    assert parts == {p: b for p, b in whole.items() if p in parts}
    assert read_manifest(folder).cut_flow[0].before == 300


def test_an_input_that_was_skipped_can_be_taken_away(tmp_path):
    (good,) = write_toys(tmp_path, [200])
    whole = contents(make(tmp_path, "whole", [good]))
    _truncated(tmp_path)
    make(tmp_path, "out", [str(tmp_path / "bad.root"), good], on_error="skip")
    folder = make(tmp_path, "out", [good], on_error="skip")
    assert read_manifest(folder).missing == ()
    assert {p: b for p, b in contents(folder).items() if "part" in p} == {
        p: b for p, b in whole.items() if "part" in p
    }


def test_if_every_input_is_skipped_there_is_nothing_to_do(tmp_path):
    _empty(tmp_path)
    with pytest.raises(
        UserError, match=r"none of the 1 inputs can be read; the first: .*bad\.root"
    ):
        make(tmp_path, "out", [str(tmp_path / "bad.root")], on_error="skip")
    assert not (tmp_path / "out/dataset").exists()


def test_only_the_damaged_block_is_skipped_and_later_fetched(tmp_path, job_log):
    columns = toy_columns(4 * 65_536 + 100)
    path = write_baskets(tmp_path / "a.root", columns)
    other = write_tree(tmp_path / "b.root", toy_columns(500, 1), tree="Hits")
    changes = {"rows_per_part": 2 * 65_536, "on_error": "skip"}
    whole = contents(make(tmp_path, "whole", [path, other], **changes))
    flip_basket(path, "width", 3)
    folder = make(tmp_path, "out", [path, other], **changes)
    (gap,) = read_manifest(folder).missing
    assert (gap.path, gap.start, gap.stop) == (path, 3 * 65_536, 4 * 65_536)
    assert re.fullmatch(
        rf"{re.escape(path)}: entries 196608 to 262144 cannot be read \(.+\)", gap.reason
    )
    assert read_manifest(folder).cut_flow[0].before == 3 * 65_536 + 600
    # it is repaired; of all that was read before, nothing can be read again
    flip_basket(path, "width", 3)
    for number in (0, 1, 2, 4):
        flip_basket(path, "width", number)
    make(tmp_path, "out", [path, other], **changes)
    assert "ingest: 5 of 6 blocks are there from an earlier run" in job_log
    assert contents(folder) == whole


def test_values_that_no_logarithm_has_are_counted(tmp_path):
    columns = toy_columns(1000)
    columns["angle"][:3] = np.nan
    columns["width"][3:5] = np.inf
    columns["depth"][5] = -np.inf
    columns["e_raw"][10:14] = -1.0
    columns["e_raw"][14:19] = 0.0
    columns["e_true"][20:22] = [0.0, -3.0]
    columns["depth"][30:33] = [0.0, -1.0, 9.0]
    cuts = [{"column": "e_true", "above": 0.0}, {"column": "e_raw", "above": 0.0}]
    path = write_tree(tmp_path / "a.root", columns, tree="Hits")
    folder = make(tmp_path, "out", [path], cuts=cuts)
    manifest = read_manifest(folder)
    lost = {step.rule: step.before - step.after for step in manifest.cut_flow}
    assert lost == {"finite values": 6, "e_true > 0": 2, "e_raw > 0": 9}
    kept = np.concatenate([[columns["depth"][19]], columns["depth"][22:]])
    assert manifest.floors[0].rows == (kept < 10).sum() >= 3
    for part in manifest.parts:
        rows = read_part(folder, part)
        assert min(rows["e_raw"].to_numpy().min(), rows["scale"].to_numpy().min()) > 0
        assert rows["depth"].to_numpy().min() >= 10


def test_a_file_is_read_once(tmp_path):
    (path,) = write_toys(tmp_path, [100])
    copy = shutil.copy(path, tmp_path / "copy.root")
    with pytest.raises(UserError, match=r"0\.root is named twice; each file may be read once"):
        make(tmp_path, "out", [path, path])
    with pytest.raises(UserError, match=r"copy\.root: the same file as .*0\.root; name it once"):
        make(tmp_path, "out", [path, str(copy)])


def test_a_tree_without_entries_is_fine_beside_others(tmp_path):
    inputs = write_toys(tmp_path, [200])
    none = write_tree(tmp_path / "none.root", toy_columns(0), tree="Hits")
    alone = make(tmp_path, "alone", inputs)
    both = make(tmp_path, "both", [none, *inputs])
    assert {p.sha256 for p in read_manifest(both).parts} == {
        p.sha256 for p in read_manifest(alone).parts
    }
    with pytest.raises(
        UserError, match=r"none\.root: tree Hits has no clusters, nor has any other"
    ):
        make(tmp_path, "none", [none])
    assert not (tmp_path / "none/dataset").exists()


def test_a_file_that_was_written_again_makes_a_new_dataset(tmp_path, job_log):
    inputs = write_toys(tmp_path, [200, 300])
    folder = make(tmp_path, "out", inputs)
    make(tmp_path, "out", inputs)
    assert any(line.startswith("ingest: kept, ") for line in job_log)
    write_tree(Path(inputs[0]), toy_columns(200, seed=7), tree="Hits")
    make(tmp_path, "out", inputs)
    assert "ingest: 1 of 2 blocks are there from an earlier run" in job_log
    assert contents(folder) == contents(make(tmp_path, "new", inputs))


def test_a_file_that_changes_under_the_job_is_refused(tmp_path, monkeypatch):
    inputs = write_toys(tmp_path, [200, 300])
    plan_parts = ingest.plan_parts

    def plan_and_change(*arguments, **options):
        write_tree(Path(inputs[1]), toy_columns(300, seed=7), tree="Hits")
        return plan_parts(*arguments, **options)

    monkeypatch.setattr(ingest, "plan_parts", plan_and_change)
    with pytest.raises(UserError, match=r"1\.root: changed since it was inspected; run again"):
        make(tmp_path, "out", inputs)
    assert not (tmp_path / "out/dataset").exists()
    monkeypatch.undo()


@pytest.mark.parametrize("sign", [0, -1])
def test_weights_count_in_the_statistics(tmp_path, sign):
    columns = toy_columns(150_000)
    rng = np.random.default_rng(5)
    weight = rng.gamma(2.0, 1.0, 150_000) * np.where(rng.random(150_000) < 0.2, sign, 1)
    columns["w"] = weight.astype(np.float32)
    path = write_tree(tmp_path / "a.root", columns, tree="Hits")
    folder = make(tmp_path, "out", [path], weight="w")
    manifest = read_manifest(folder)
    tables = [read_part(folder, part) for part in manifest.parts_of("train")]
    train = {
        name: np.concatenate([table[name].to_numpy() for table in tables]).astype(np.longdouble)
        for name in ("e_raw", "depth", "angle", "scale", "w")
    }
    w = train["w"]
    for name in ("e_raw", "depth", "angle", "scale"):
        found = manifest.statistics[name]
        mean = (w * train[name]).sum() / w.sum()
        std = np.sqrt((w * (train[name] - mean) ** 2).sum() / w.sum())
        assert found.sum_of_weights == pytest.approx(float(w.sum()), rel=1e-12)
        assert found.mean == pytest.approx(float(mean), rel=1e-12, abs=1e-12)
        assert found.std == pytest.approx(float(std), rel=1e-12)
    log = np.log10(train["scale"])
    mean = float((w * log).sum() / w.sum())
    assert manifest.statistics["scale"].log10_mean == pytest.approx(mean, rel=1e-11, abs=1e-12)


def test_weights_that_allow_no_statistics_are_refused(tmp_path):
    columns = toy_columns(1000) | {"w": np.full(1000, -1.0, np.float32)}
    path = write_tree(tmp_path / "a.root", columns, tree="Hits")
    with pytest.raises(UserError, match=r"weights w of the training clusters allow no statistics"):
        make(tmp_path, "out", [path], weight="w")


def test_an_earlier_part_is_read_once_for_all_its_blocks(tmp_path, monkeypatch):
    inputs = write_toys(tmp_path, [200, 300, 150, 250])
    folder = make(tmp_path, "out", inputs[:3], rows_per_part=10_000)
    earlier = sorted(part.path for part in read_manifest(folder).parts)
    read = []

    def read_and_tell(folder, part):
        read.append(part.path)
        return read_part(folder, part)

    monkeypatch.setattr(write, "read_part", read_and_tell)
    monkeypatch.setattr(ingest, "map_parts", lambda _, do, plans, **__: [do(p) for p in plans])
    make(tmp_path, "out", inputs, rows_per_part=10_000)
    assert sorted(read) == earlier
    assert contents(folder) == contents(make(tmp_path, "new", inputs, rows_per_part=10_000))
