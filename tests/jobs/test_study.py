from pathlib import Path

import pytest
import yaml

from jobs.kinds import KINDS
from jobs.study import load_study
from pipeline.formats.errors import UserError

ROOT = Path(__file__).parents[2]


def _write(path, **sections):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(sections))
    return str(path)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_studies_are_valid(path):
    study = load_study([str(path)], [])
    assert study.folder == ROOT / "runs" / path.stem
    assert study.models or study.dataset.target is None


@pytest.mark.parametrize(
    ("site", "key", "expected"),
    [
        ("slurm", ("dask", "batch", "logs"), str(ROOT / "runs/slurm_logs")),
        ("htcondor_cern", ("dask", "farm"), "htcondor"),
        ("ray_cluster", ("ray", "address"), "http://127.0.0.1:8265"),
    ],
)
def test_a_shipped_site_moves_a_study(site, key, expected):
    demo, place = ROOT / "configs/demo.yaml", ROOT / f"configs/sites/{site}.yaml"
    value = load_study([str(demo), str(place)], [])
    for word in key:
        value = getattr(value, word)
    assert value == expected


def test_later_files_and_overrides_win(tmp_path):
    first = _write(tmp_path / "a.yaml", name="a", output="out", seed=1, dask={"workers": 1})
    site = _write(tmp_path / "b.yaml", seed=2, dask={"read_rows": 10})
    study = load_study([first, site], ["dask.workers=3", "models.net.kind=bnn"])
    assert (study.seed, study.dask.workers, study.dask.read_rows) == (2, 3, 10)
    assert study.models["net"].kind == "bnn"


def test_paths_count_from_the_file_that_names_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = _write(tmp_path / "x/a.yaml", name="a", output="out", dataset={"inputs": ["c.root"]})
    site = _write(tmp_path / "y/b.yaml", output="../far")
    study = load_study([first, site], ["ray.token=token", "dask.tls={ca: a, cert: b, key: c}"])
    assert study.output == str(tmp_path / "far")
    assert study.ray.token == str(tmp_path / "token")
    assert study.dask.tls.ca == str(tmp_path / "a")
    assert study.dataset.inputs == (str(tmp_path / "x/c.root"),)
    study = load_study([first], ["dataset.inputs=[d.root, '@l', 'root://host//e.root']"])
    here = str(tmp_path)
    assert study.dataset.inputs == (f"{here}/d.root", f"@{here}/l", "root://host//e.root")


def test_all_errors_are_shown_together(tmp_path):
    path = _write(tmp_path / "a.yaml", name="a", output="o", sed=3, dask={"workers": 0})
    with pytest.raises(UserError) as caught:
        load_study([path], ["models.net.kind=bnn", "models.net.epochs=many"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert f"{path}: dask.workers: input should be greater than 0, got 0" in lines
    assert f"{path}: sed: unknown key (did you mean seed?), got 3" in lines
    assert any(line.startswith("override: models.net.epochs:") for line in lines)
    assert "got 'many'" in str(caught.value)


def test_a_wrong_key_deep_in_a_model_gets_a_hint(tmp_path):
    path = _write(tmp_path / "a.yaml", name="a", output="o", models={"n": {"kind": "bnn"}})
    with pytest.raises(UserError, match=r"models\.n\.epoch: unknown key \(did you mean epochs\?\)"):
        load_study([path], ["models.n.epoch=3"])


def test_the_kinds_of_models_are_told_apart(tmp_path):
    path = _write(tmp_path / "a.yaml", name="a", output="o", models={"n": {"epochs": 3}})
    kinds = ", ".join(repr(name) for name, kind in KINDS.items() if kind.section == "models")
    with pytest.raises(UserError) as caught:
        load_study([path], ["models.m.kind=bn", "models.k={kind: repulsive_ensemble, samples: 3}"])
    assert str(caught.value).splitlines() == [
        f"{path}: models.n.kind: this key is required, one of {kinds}",
        "override: models.k.samples: unknown key, got 3",
        f"override: models.m.kind: expected one of {kinds}, got 'bn'",
    ]
    with pytest.raises(UserError, match=r"models\.n\.member: unknown key \(did you mean members\?"):
        load_study([path], ["models.n={kind: repulsive_ensemble, member: 3}"])
    study = load_study([path], ["models.n={kind: repulsive_ensemble, members: 3}"])
    assert study.models["n"].num_networks == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("models.n={kind: repulsive_ensemble, repulsion_scale: -1}", "models.n.repulsion_scale: "),
        ("simulate.num_cluster=3", "(did you mean num_clusters?)"),
        ("name", "an override is key.path=value"),
        ("=3", "an override is key.path=value"),
        ("name={", "is no YAML value"),
        ("ray={workers: 1, workers: 2}", "no YAML value (the key workers is there twice"),
        ("simulate={? [a, b] : 1}", "no YAML value (while constructing a mapping"),
        ("models.oracle.kind=bnn", "model name 'oracle'"),
        ("dataset.split.train=0.5", "must be 1, they sum to 0.9"),
        ("dataset.cuts=[]", "log10 is taken of"),
        ("dataset.cuts=[{column: clusterE}]", "a cut needs `above` or `below`"),
        ("dataset.extras=[{name: clusterE, role: truth}]", "more than once"),
        ("ray={address: none, workers: 2}", "address none means one worker on the CPU"),
        ("seed=-1", "greater than or equal to 0, got -1"),
    ],
)
def test_wrong_overrides_are_explained(tmp_path, override, message):
    path = _write(tmp_path / "a.yaml", name="a", output="o")
    with pytest.raises(UserError) as caught:
        load_study([path], [override])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "cannot be read as YAML"),
        ("- 1\n", "a mapping of sections, got list"),
        ("models:\n  a: {}\nmodels:\n  b: {}\n", r"the key models is there twice .*line 3"),
        ("models: {a: 1, b: 2, a: 3}\n", "the key a is there twice"),
    ],
)
def test_files_that_are_no_study(tmp_path, text, message):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_study([str(path)], [])
    with pytest.raises(UserError, match="no such study file"):
        load_study([str(tmp_path / "absent.yaml")], [])
