import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from toy_detector import toy_columns, write_tree

from jobs.cli import JOBS, main

ROOT = Path(__file__).parents[2]


def _study(tmp_path, **sections):
    path = tmp_path / "study.json"
    path.write_text(json.dumps({"name": "toy", "output": "out", **sections}))
    return str(path)


def test_help_lists_every_job_with_one_line(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for job, text in JOBS.items():
        assert f"  {job:<9}  {text}" in lines


def test_help_needs_no_heavy_library():
    code = "import sys, jobs.cli; jobs.cli.main(['--help']); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_tools_have_their_help_and_the_command_its_version(capsys):
    assert main(["apply", "--help"]) == 0
    told = capsys.readouterr().out
    assert "MODEL INPUT [INPUT ...] OUTPUT" in told
    assert "Keys: " in told
    assert "layout" in told
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"topocal {version('topocal')}\n"


def test_an_unknown_job_is_refused(capsys):
    assert main(["trian"]) == 2
    assert "no job named trian; the jobs are simulate" in capsys.readouterr().err


def test_no_word_prints_the_help(capsys):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("job", "words", "message"),
    [
        ("ingest", ["sed=3"], "override: sed: unknown key (did you mean seed?), got 3"),
        ("ingest", ["dataset.inputs=[absent.root]"], "absent.root: no such file"),
        ("ingest", ["dataset.inputs=[hits.root]"], "no tree named ClusterTree, it holds Hits"),
        (
            "ingest",
            ["dataset.inputs=[hits.root]", "dataset.layout={tree: Hits}"],
            "lacks features clusterE, clusterEta",
        ),
        ("ingest", [], "sample.json: not found; it is written by `topocal simulate`"),
        ("train", ["models.net.kind=bnn"], "manifest.json: not found; it is written by `topocal i"),
        ("train", [], "the study has no models"),
        ("calibrate", [], "not found; it is written by `topocal ingest`"),
        ("report", [], "not found; it is written by"),
        ("evaluate", [], "not found; it is written by"),
    ],
)
def test_bad_input_gets_one_sentence_and_status_2(
    tmp_path, monkeypatch, capsys, job, words, message
):
    monkeypatch.chdir(tmp_path)
    write_tree(tmp_path / "hits.root", toy_columns(5), tree="Hits")
    assert main([job, _study(tmp_path), *words, "dask.workers=1"]) == 2
    error = capsys.readouterr().err
    told = [line for line in error.splitlines() if line.startswith(f"topocal {job}: ")]
    assert len(told) == 1
    assert message in told[0]
    assert "Traceback" not in error
    # nothing that a later job would take for a result
    assert not list(tmp_path.rglob("manifest.json"))
    assert not list(tmp_path.rglob("model.json"))
    assert not list(tmp_path.rglob("records"))


def test_a_job_without_a_study_prints_its_usage(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "seed=3"])
    assert stopped.value.code == 2
    assert "topocal train STUDY.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    "module", ["pipeline.calibrators.onnx_session", "training.export.onnx_file"]
)
def test_onnx_runtime_reports_nothing_and_leaves_the_home_folder_alone(tmp_path, module):
    others = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "CI"}
    inherited = {key: value for key, value in os.environ.items() if key not in others}
    subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        env=inherited | {"HOME": str(tmp_path)},
        cwd=ROOT,
        check=True,
    )
    assert not list(tmp_path.rglob("*onnxruntime*"))
