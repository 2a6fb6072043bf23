import awkward as ak
import numpy as np
import pytest
import uproot
from conftest import toy_columns, write_tree

from pipeline.formats.errors import UserError
from pipeline.read import inspect_file, list_inputs, read_blocks


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.root: no such file"):
        inspect_file(str(tmp_path / "absent.root"), "ClusterTree", [])


def test_a_file_that_is_not_root_is_named(tmp_path):
    path = tmp_path / "text.root"
    path.write_text("not a ROOT file " * 100)
    with pytest.raises(UserError, match=r"text\.root: cannot be opened as a ROOT file"):
        inspect_file(str(path), "ClusterTree", [])


def test_an_empty_file_is_named(tmp_path):
    path = tmp_path / "empty.root"
    path.touch()
    with pytest.raises(UserError, match=r"empty\.root: cannot be opened"):
        inspect_file(str(path), "ClusterTree", [])


def test_a_missing_tree_names_those_that_are_there(tmp_path):
    path = write_tree(tmp_path / "a.root", toy_columns(5), tree="Hits")
    with pytest.raises(UserError, match="no tree named ClusterTree, it holds Hits; set dataset"):
        inspect_file(path, "ClusterTree", [])


def test_all_missing_branches_are_named_together(tmp_path):
    path = write_tree(tmp_path / "a.root", toy_columns(5))
    with pytest.raises(UserError, match="lacks clusterE, avgMu;"):
        inspect_file(path, "ClusterTree", ["clusterE", "depth", "avgMu"])


def test_what_a_file_is(tmp_path):
    path = write_tree(tmp_path / "a.root", toy_columns(7), topocal_simulation='{"a": 1}')
    file, branches = inspect_file(path, "ClusterTree", ["depth"])
    assert (file.entries, file.simulation) == (7, {"a": 1})
    assert branches == {"e_raw", "e_true", "depth", "width", "angle"}


@pytest.mark.parametrize("step", [1, 3, 100])
def test_blocks_do_not_depend_on_the_step(tmp_path, step):
    columns = toy_columns(50)
    path = write_tree(tmp_path / "a.root", columns)
    blocks = [(0, 20), (20, 41), (41, 50)]
    read = list(read_blocks(path, "ClusterTree", ["depth", "e_raw"], blocks, step))
    for name in ("depth", "e_raw"):
        joined = np.concatenate([block[name] for block in read])
        np.testing.assert_array_equal(joined, columns[name])
        assert joined.dtype == np.dtype("f4").newbyteorder("=")


def test_a_ragged_branch_is_refused(tmp_path):
    path = tmp_path / "a.root"
    with uproot.recreate(path) as file:
        file["ClusterTree"] = {"e": ak.Array([[1.0, 2.0], [3.0]])}
    with pytest.raises(UserError, match="branch e is not one number per entry"):
        list(read_blocks(str(path), "ClusterTree", ["e"], [(0, 2)], 10))


def test_globs_are_sorted_and_must_match(tmp_path):
    for name in "ba":
        write_tree(tmp_path / f"{name}.root", toy_columns(1))
    assert [p[-6:] for p in list_inputs([str(tmp_path / "*.root")])] == ["a.root", "b.root"]
    with pytest.raises(UserError, match="no file matches"):
        list_inputs([str(tmp_path / "*.none")])
    with pytest.raises(UserError, match="named twice"):
        list_inputs([str(tmp_path / "a.root"), str(tmp_path / "*.root")])
