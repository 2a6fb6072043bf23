import itertools
import json

import numpy as np
import pytest
import uproot

from jobs import simulate
from jobs.launch import Run
from jobs.study import load_study
from pipeline.formats.errors import UserError
from pipeline.root.files import SIMULATION_KEY
from pipeline.samples.topo_clusters import TOPO_CLUSTER_FEATURES
from pipeline.simulators.known_density.settings import RECIPE


def _study(tmp_path, **changes):
    path = tmp_path / "study.json"
    sections = {
        "name": "toy",
        "output": "out",
        "simulate": {"num_clusters": 2500, "clusters_per_file": 1000},
        **changes,
    }
    path.write_text(json.dumps(sections))
    return load_study([str(path)], ["dask.workers=1"])


def _clusters(study):
    return [
        uproot.open(path)["ClusterTree"].arrays(library="np")
        for path in simulate.simulated_inputs(study)
    ]


def test_the_content_does_not_depend_on_the_number_of_workers(tmp_path):
    study = _study(tmp_path)
    simulate.main(study, Run())
    wider = study.model_copy(
        update={
            "output": str(tmp_path / "wide"),
            "dask": study.dask.model_copy(update={"workers": 3}),
        }
    )
    simulate.main(wider, Run())
    for one, three in zip(_clusters(study), _clusters(wider), strict=True):
        assert one.keys() == three.keys()
        for name, values in one.items():
            np.testing.assert_array_equal(values, three[name])


def test_files_have_the_real_branches_and_say_how_they_were_made(tmp_path):
    study = _study(tmp_path)
    simulate.main(study, Run())
    clusters = _clusters(study)
    assert [len(file["clusterE"]) for file in clusters] == [1000, 1000, 500]
    assert {feature.name for feature in TOPO_CLUSTER_FEATURES} <= clusters[0].keys()
    with uproot.open(simulate.simulated_inputs(study)[0]) as file:
        settings = json.loads(str(file[SIMULATION_KEY]))
    assert settings == {"recipe": RECIPE, "settings": study.simulate.generator.model_dump()}


def test_events_are_numbered_without_overlap_and_share_their_pile_up(tmp_path):
    study = _study(tmp_path)
    simulate.main(study, Run())
    files = _clusters(study)
    for first, second in itertools.pairwise(files):
        assert first["eventNumber"].max() < second["eventNumber"].min()
    for file in files:
        _, start = np.unique(file["eventNumber"], return_index=True)
        for name in ("avgMu", "nPrimVtx", "runNumber", "nCluster"):
            low = np.minimum.reduceat(file[name], np.sort(start))
            high = np.maximum.reduceat(file[name], np.sort(start))
            np.testing.assert_array_equal(low, high)


def test_another_seed_gives_another_sample_and_other_files(tmp_path):
    study = _study(tmp_path)
    simulate.main(study, Run())
    other = _study(tmp_path, seed=7).model_copy(update={"output": str(tmp_path / "other")})
    simulate.main(other, Run())
    assert not np.array_equal(_clusters(study)[0]["clusterE"], _clusters(other)[0]["clusterE"])
    uuids = [
        uproot.open(path).file.uuid
        for one in (study, other)
        for path in simulate.simulated_inputs(one)
    ]
    assert len(set(uuids)) == len(uuids)


def test_a_study_without_the_section_is_told_so(tmp_path):
    study = _study(tmp_path).model_copy(update={"simulate": None})
    with pytest.raises(UserError, match="no section simulate"):
        simulate.main(study, Run())
    with pytest.raises(UserError, match=r"not found; it is written by `topocal simulate`"):
        simulate.simulated_inputs(study)
