import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from statistics_fixture import statistics_of

from pipeline.formats.columns import Feature
from pipeline.formats.errors import UserError
from pipeline.formats.files import TEMPORARY, replacing, write_text
from pipeline.formats.folders import CLAIM, claim, replacing_folder
from pipeline.formats.manifest import Part
from pipeline.formats.seeds import derive_seed, generator
from pipeline.formats.transforms import scale, scaling_of
from pipeline.formats.versions import fingerprint

PART = Part(path="p", split="train", index=0, rows=1, size=2, sha256="0")


@given(hnp.arrays(np.float64, 20, elements=st.floats(1e-3, 1e3)))
def test_scaled_features_are_those_of_equations_7_to_9(values):
    signed = values * np.where(np.arange(20) % 2, 1.0, -1.0)
    spread, log_spread = values.std() or 1.0, np.log10(values).std() or 1.0
    expected = {
        "log10_standard": (np.log10(values) - np.log10(values).mean()) / log_spread,
        "standard": (values - values.mean()) / spread,
        "none": values,
    }
    for transform, answer in expected.items():
        scaling = scaling_of(Feature(name="x", transform=transform), statistics_of(values))
        np.testing.assert_allclose(
            scale({"x": values}, [scaling])[:, 0], answer, rtol=1e-5, atol=1e-5
        )
    scaling = scaling_of(Feature(name="x", transform="max_abs"), statistics_of(signed))
    scaled = scale({"x": signed}, [scaling])[:, 0]
    np.testing.assert_allclose(scaled, signed / np.abs(signed).max(), rtol=1e-6)


def test_a_constant_column_stays_finite():
    statistics = statistics_of(np.full(5, 3.0))
    scaling = scaling_of(Feature(name="x", transform="standard"), statistics)
    assert scale({"x": np.full(2, 3.0)}, [scaling]).tolist() == [[0.0], [0.0]]


def test_log10_of_a_column_with_values_below_zero_has_no_scaling():
    with pytest.raises(ValueError, match="column x holds values <= 0"):
        scaling_of(
            Feature(name="x", transform="log10_standard"), statistics_of(np.array([-1.0, 1.0]))
        )


def _break_off_writing(path):
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("broken")


def test_a_file_is_complete_or_absent(tmp_path):
    path = tmp_path / "folder" / "a.txt"
    with pytest.raises(RuntimeError, match="broken"):
        _break_off_writing(path)
    assert not path.exists()
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="broken"):
        _break_off_writing(path)
    assert path.read_text() == "old"
    assert not list(path.parent.glob(f"{TEMPORARY}*"))


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "out"
    for number in (1, 2):
        with replacing_folder(folder) as new:
            write_text(new / f"{number}.txt", "x")
    assert {path.name for path in folder.iterdir()} == {"2.txt", CLAIM}
    with pytest.raises(RuntimeError, match="broken"):
        _break_off_replacing(folder)
    assert {path.name for path in folder.iterdir()} == {"2.txt", CLAIM}
    assert list(tmp_path.iterdir()) == [folder]


def _break_off_replacing(folder):
    with replacing_folder(folder) as new:
        write_text(new / "half.txt", "x")
        raise RuntimeError("broken")


def test_files_of_others_are_not_touched(tmp_path):
    write_text(tmp_path / "out" / "mine.root", "x")
    for write in (claim, _break_off_replacing):
        with pytest.raises(UserError, match="holds files that this program did not write"):
            write(tmp_path / "out")
    assert (tmp_path / "out" / "mine.root").read_text() == "x"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not found; it is written by `topocal ingest`, run that first"),
        ("{", "the file is damaged or from another version"),
        ('{"path": "p", "extra": 1}', "the file is damaged or from another version"),
    ],
)
def test_records_that_cannot_be_read_are_explained(tmp_path, content, message):
    path = tmp_path / "part.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"part\.json") as caught:
        Part.load(path, made_by="ingest")
    assert message in str(caught.value)


def test_records_survive_a_round_trip(tmp_path):
    PART.save(tmp_path / "part.json")
    assert Part.load(tmp_path / "part.json", made_by="ingest") == PART


def test_a_fingerprint_sees_every_value_and_no_order_of_keys():
    one = fingerprint(part=PART, numbers=[1, 2], nested={"a": 1, "b": 2})
    assert one == fingerprint(nested={"b": 2, "a": 1}, numbers=[1, 2], part=PART)
    assert one != fingerprint(part=PART, numbers=[2, 1], nested={"a": 1, "b": 2})
    other = PART.model_copy(update={"rows": 2})
    assert one != fingerprint(part=other, numbers=[1, 2], nested={"a": 1, "b": 2})
    with pytest.raises(TypeError, match="fingerprint of a object"):
        fingerprint(x=object())


def test_seeds_depend_on_every_argument_and_are_the_same_everywhere():
    seeds = {
        derive_seed(s, p, *i) for s in (0, 1) for p in ("a", "b") for i in ((), (0,), (1,), (0, 1))
    }
    assert len(seeds) == 16
    # BLAKE2b of b"1/simulate/2", 8 bytes, halved; another value would change every sample
    assert derive_seed(1, "simulate", 2) == 2495180738217202439
    assert generator(1, "x").random() == generator(1, "x").random()
