import numpy as np
import pytest
from reference.gaussian_mixture import log_density

from pipeline.calibrators.density import OnnxDensity
from pipeline.formats.columns import Column, Cut, Target
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import DatasetManifest, FloorCount, InputFile
from pipeline.formats.seeds import generator
from pipeline.samples.topo_clusters import TOPO_CLUSTER_FEATURES
from pipeline.simulators.known_density.density import OracleDensity
from pipeline.simulators.known_density.sample import draw_clusters
from pipeline.simulators.known_density.settings import RECIPE, GeneratorSettings
from pipeline.simulators.registry import oracle_of

CUT = Cut(column="cluster_ENG_CALIB_TOT", above=0.3)


def _file(name="a", simulation=None):
    settings = GeneratorSettings().model_dump() if simulation is None else simulation
    settings = {"recipe": RECIPE, "settings": settings}
    return InputFile(
        path=name, size=1, uuid=name, fingerprint=name, entries=1, rows=1, simulation=settings
    )


def _manifest(**changes):
    features = TOPO_CLUSTER_FEATURES
    sections = {
        "fingerprint": "f",
        "settings_fingerprint": "s",
        "features": features,
        "target": Target(),
        "columns": tuple(Column(name=f.name, role="feature") for f in features),
        "inputs": (_file(),),
        "cut_flow": (),
        "floors": (FloorCount(column="cluster_SECOND_TIME", floor=1e-3, rows=0),),
        "cuts": (CUT,),
        "split": {},
        "parts": (),
        "statistics": {},
        "versions": {},
    }
    return DatasetManifest(**{**sections, **changes})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"inputs": (_file(simulation={}).model_copy(update={"simulation": None}),)},
            "were not simulated by this generator",
        ),
        (
            {"inputs": (_file("a"), _file("b", {"resistant": False}))},
            "are from different generators",
        ),
        ({"target": Target(denominator="other")}, "its target is not clusterE / cluster_ENG"),
        ({"target": None}, "its target is not"),
        ({"columns": (Column(name="clusterE", role="feature"),)}, "it lacks avgMu"),
        (
            {"floors": (FloorCount(column="cluster_SECOND_TIME", floor=0.1, rows=0),)},
            "the floor of cluster_SECOND_TIME hides what the density depends on",
        ),
        (
            {"floors": (FloorCount(column="clusterE", floor=2.0, rows=0),)},
            "the floor of clusterE hides",
        ),
        (
            {"inputs": (_file().model_copy(update={"simulation": {"recipe": 0, "settings": {}}}),)},
            "of another version of the generator",
        ),
        (
            {"cuts": (CUT, Cut(column="cluster_ENG_CALIB_FRAC_EM", above=0.5))},
            "a cut on cluster_ENG_CALIB_FRAC_EM changes the density",
        ),
    ],
)
def test_a_dataset_without_an_exact_density_says_why(changes, reason):
    assert reason in oracle_of(_manifest(**changes))


def test_the_oracle_is_cut_as_the_truth_was_cut():
    clusters = draw_clusters(GeneratorSettings(), generator(3, "test"), 40_000)
    deposit = clusters["cluster_ENG_CALIB_TOT"].astype(np.float64)
    response = np.log10(clusters["clusterE"] / deposit)
    cut = (deposit > 1.0) & (deposit < 20.0)
    rows = {name: values[cut] for name, values in clusters.items()}
    cuts = (CUT, Cut(column="cluster_ENG_CALIB_TOT", above=1.0, below=20.0))
    oracle = oracle_of(_manifest(cuts=cuts))
    assert isinstance(oracle, OracleDensity)
    assert oracle.truth_cut == (1.0, 20.0)
    mixtures = oracle.of_rows(rows)
    inside = log_density(mixtures, response[cut])
    assert np.isfinite(inside).all()
    # rows beyond the cuts are impossible, and a cut makes the rest more probable
    assert (log_density(mixtures, mixtures.upper + 1e-6) == -np.inf).all()
    assert (log_density(mixtures, mixtures.lower - 1e-6) == -np.inf).all()
    free = oracle_of(_manifest())
    assert (inside >= log_density(free.of_rows(rows), response[cut]) - 1e-12).all()


def test_a_model_file_that_is_not_the_one_of_the_card_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    density = OnnxDensity(path, "0" * 64, ("x",), (-20.0, 5.0))
    with pytest.raises(UserError, match="missing or not the file that the model card lists"):
        density.of_rows({"x": np.ones(3)})
    path.write_bytes(b"other")
    with pytest.raises(UserError, match="missing or not the file"):
        density.of_rows({"x": np.ones(3)})
