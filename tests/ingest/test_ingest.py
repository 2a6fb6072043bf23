import json

import numpy as np
import pytest
from toy_detector import DATASET, toy_columns, write_tree

from jobs import ingest
from jobs.launch import Run
from jobs.study import load_study
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import InputFile, read_manifest, read_part
from pipeline.ingest.plan import Block, plan_blocks
from pipeline.settings import STATISTICS_BLOCK

# Four features, a target and columns of other names than the topo-cluster defaults.


def _study(tmp_path, inputs, **changes):
    path = tmp_path / "study.json"  # YAML holds JSON
    sections = {"name": "toy", "output": "out", "dataset": {**DATASET, "inputs": inputs, **changes}}
    path.write_text(json.dumps(sections))
    return load_study([str(path)], ["dask.workers=1"])


def _contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _rows(study, split):
    folder = ingest.dataset_folder(study)
    manifest = read_manifest(folder)
    tables = [read_part(folder, part) for part in manifest.parts_of(split)]
    return {
        name: np.concatenate([table[name].to_numpy() for table in tables])
        for name in tables[0].column_names
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Three files: one of several blocks, one tiny, one of a block and a bit."""
    folder = tmp_path_factory.mktemp("inputs")
    sizes = {"a": 150_000, "b": 10, "c": 70_000}
    paths = []
    for seed, (name, rows) in enumerate(sizes.items()):
        columns = toy_columns(rows, seed)
        columns["width"][:3] = np.nan
        paths.append(write_tree(folder / f"{name}.root", columns, tree="Hits"))
    return paths


def test_blocks_are_aligned_to_files_and_packed_in_order():
    files = [
        InputFile(
            path=str(n), size=1, uuid=str(n), fingerprint=str(n), entries=entries, rows=entries
        )
        for n, entries in enumerate([STATISTICS_BLOCK + 5, 0, 3, 2 * STATISTICS_BLOCK])
    ]
    size = STATISTICS_BLOCK
    assert plan_blocks(files, size + 6) == [
        (Block(0, 0, size), Block(0, size, size + 5), Block(2, 0, 3)),
        (Block(3, 0, size), Block(3, size, 2 * size)),
    ]
    everything = [block for group in plan_blocks(files, 1) for block in group]
    assert sum(block.stop - block.start for block in everything) == 3 * size + 8
    assert all(block.start % size == 0 for block in everything)


def test_the_dataset_is_byte_identical_for_any_workers_and_read_size(tmp_path, inputs):
    contents = []
    for number, (workers, step) in enumerate([(1, 65_536), (3, 65_536), (1, 1_777), (3, 200_000)]):
        study = _study(tmp_path, inputs, rows_per_part=100_000)
        study = study.model_copy(
            update={
                "output": str(tmp_path / f"out{number}"),
                "dask": study.dask.model_copy(update={"workers": workers, "read_rows": step}),
            }
        )
        ingest.main(study, Run())
        contents.append(_contents(ingest.dataset_folder(study)))
    # two parts of each split and their receipts, the manifest, the claim
    assert len(contents[0]) == 3 * 2 + 2 + 2
    assert all(other == contents[0] for other in contents[1:])


def test_statistics_and_cut_flow_equal_numpy_on_the_whole_sample(tmp_path, inputs):
    study = _study(tmp_path, inputs)
    ingest.main(study, Run())
    manifest = read_manifest(ingest.dataset_folder(study))
    whole = {
        name: np.concatenate([toy_columns(n, s)[name] for s, n in enumerate([150_000, 10, 70_000])])
        for name in ("e_raw", "e_true", "depth", "width")
    }
    is_first = np.concatenate([np.arange(n) < 3 for n in (150_000, 10, 70_000)])
    keep = ~is_first
    flow = [keep.sum()]
    for rule in (whole["e_true"] > 0.1, whole["e_raw"] > 0, np.abs(whole["width"] - 0.5) < 0.45):
        keep = keep & rule
        flow.append(keep.sum())
    assert [step.after for step in manifest.cut_flow] == flow
    assert manifest.cut_flow[0].before == 220_010
    assert manifest.floors[0].rows == (whole["depth"][keep] < 10).sum()
    assert sum(manifest.rows_of(split) for split in ("train", "validation", "test")) == flow[-1]

    train = _rows(study, "train")
    for name in ("e_raw", "depth", "width", "angle", "scale"):
        values = train[name].astype(np.float64)
        found = manifest.statistics[name]
        assert found.count == len(values)
        assert found.mean == pytest.approx(values.mean(), rel=1e-12, abs=1e-12)
        assert found.std == pytest.approx(values.std(), rel=1e-12)
        assert (found.minimum, found.maximum) == (values.min(), values.max())
    logs = np.log10(train["depth"].astype(np.float64))
    assert manifest.statistics["depth"].log10_mean == pytest.approx(logs.mean(), rel=1e-12)
    assert manifest.statistics["depth"].log10_std == pytest.approx(logs.std(), rel=1e-12)


def test_the_split_follows_the_cluster_and_not_its_place(tmp_path, inputs):
    study = _study(tmp_path, inputs)
    ingest.main(study, Run())
    fewer = _study(tmp_path, [inputs[2], inputs[0]])
    fewer = fewer.model_copy(update={"output": str(tmp_path / "fewer")})
    ingest.main(fewer, Run())
    for split in ("train", "validation", "test"):
        before, after = _rows(study, split), _rows(fewer, split)
        assert np.isin(after["cluster_id"], before["cluster_id"]).all()
    manifest = read_manifest(ingest.dataset_folder(study))
    fractions = [manifest.rows_of(s) / manifest.cut_flow[-1].after for s in ("train", "validation")]
    np.testing.assert_allclose(fractions, [0.600, 0.034], atol=0.005)


def test_another_seed_gives_another_split(tmp_path, inputs):
    split = {"train": 0.6, "validation": 0.034, "test": 0.366}
    ids = []
    for seed in (0, 1):
        study = _study(tmp_path, inputs[2:], split={**split, "seed": seed})
        ingest.main(study, Run())
        ids.append(_rows(study, "train")["cluster_id"])
    shared = np.isin(ids[0], ids[1]).mean()
    assert shared == pytest.approx(0.6, abs=0.02)


def test_a_dataset_that_is_up_to_date_is_kept_and_redone_on_demand(tmp_path, inputs):
    study = _study(tmp_path, inputs[1:2])
    folder = ingest.dataset_folder(study)
    ingest.main(study, Run())
    stamp = (folder / "manifest.json").stat().st_mtime_ns
    ingest.main(study, Run())
    assert (folder / "manifest.json").stat().st_mtime_ns == stamp
    ingest.main(study, Run(redo=True))
    assert (folder / "manifest.json").stat().st_mtime_ns > stamp


def test_no_training_clusters_after_cuts_leaves_no_dataset(tmp_path, inputs):
    study = _study(tmp_path, inputs, cuts=[*DATASET["cuts"], {"column": "depth", "above": 1e9}])
    with pytest.raises(UserError, match=r"no training clusters are left: .*, 0 after depth > 1e"):
        ingest.main(study, Run())
    assert not ingest.dataset_folder(study).exists()


def test_the_same_file_under_two_names_is_refused(tmp_path, inputs):
    link = tmp_path / "again.root"
    link.symlink_to(inputs[1])
    study = _study(tmp_path, [inputs[1], str(link)])
    with pytest.raises(UserError, match="the same file as"):
        ingest.main(study, Run())


def test_a_damaged_part_is_noticed(tmp_path, inputs):
    study = _study(tmp_path, inputs[2:])
    ingest.main(study, Run())
    folder = ingest.dataset_folder(study)
    part = read_manifest(folder).parts_of("train")[0]
    content = bytearray((folder / part.path).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / part.path).write_bytes(content)
    with pytest.raises(UserError, match=r"do not match the manifest's checksum"):
        read_part(folder, part)
    (folder / part.path).unlink()
    with pytest.raises(UserError, match="listed in the manifest but missing"):
        read_part(folder, part)
