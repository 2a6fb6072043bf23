import awkward as ak
import numpy as np
import pytest
import uproot
from toy_detector import toy_columns, write_tree

from pipeline.formats.errors import UserError
from pipeline.root.files import Access
from pipeline.root.inspect import Wanted, inspect_file, list_inputs
from pipeline.root.layout import Layout
from pipeline.root.read import concatenate, read_rows

CLUSTERS = Layout(tree="ClusterTree")


def _inspect(path, *needed, layout=CLUSTERS):
    return inspect_file(
        str(path), layout, Wanted(dict.fromkeys(needed, "features"), (), {}), Access()
    )


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.root: no such file"):
        _inspect(tmp_path / "absent.root")


def test_a_file_that_is_not_root_is_named(tmp_path):
    path = tmp_path / "text.root"
    path.write_text("not a ROOT file " * 100)
    with pytest.raises(UserError, match=r"text\.root: cannot be read"):
        _inspect(path)


def test_an_empty_file_is_named(tmp_path):
    path = tmp_path / "empty.root"
    path.touch()
    with pytest.raises(UserError, match=r"empty\.root: cannot be read"):
        _inspect(path)


def test_a_missing_tree_names_those_that_are_there(tmp_path):
    path = write_tree(tmp_path / "a.root", toy_columns(5), tree="Hits")
    with pytest.raises(
        UserError, match="no tree named ClusterTree, it holds Hits; give its layout"
    ):
        _inspect(path)


def test_all_missing_branches_are_named_together(tmp_path):
    path = write_tree(tmp_path / "a.root", toy_columns(5))
    with pytest.raises(UserError, match="lacks features clusterE, avgMu;"):
        _inspect(path, "clusterE", "depth", "avgMu")


def test_what_a_file_is(tmp_path):
    path = write_tree(tmp_path / "a.root", toy_columns(7), topocal_simulation='{"a": 1}')
    source = _inspect(path, "depth")
    assert (source.file.entries, source.file.rows, source.file.simulation) == (7, 7, {"a": 1})
    assert source.expressions == {"depth": "depth"}


@pytest.mark.parametrize("step", [1, 3, 100])
def test_rows_do_not_depend_on_the_step(tmp_path, step):
    columns = toy_columns(50)
    source = _inspect(write_tree(tmp_path / "a.root", columns), "depth", "e_raw")
    rows = concatenate(list(read_rows(source, CLUSTERS, 7, 41, Access(read_rows=step))))
    for name in ("depth", "e_raw"):
        np.testing.assert_array_equal(rows.columns[name], columns[name][7:41])
        assert rows.columns[name].dtype == np.dtype("f4").newbyteorder("=")
    np.testing.assert_array_equal(rows.entry, np.arange(7, 41))


def test_a_ragged_branch_is_refused_where_entries_are_clusters(tmp_path):
    path = tmp_path / "a.root"
    with uproot.recreate(path) as file:
        file["ClusterTree"] = {"e": ak.Array([[1.0, 2.0], [3.0]])}
    source = _inspect(path, "e")
    with pytest.raises(UserError, match=r"column e \(e\) is not one number a cluster"):
        list(read_rows(source, CLUSTERS, 0, 2, Access()))


def test_globs_are_sorted_and_must_match(tmp_path):
    for name in "ba":
        write_tree(tmp_path / f"{name}.root", toy_columns(1))
    assert [p[-6:] for p in list_inputs([str(tmp_path / "*.root")])] == ["a.root", "b.root"]
    with pytest.raises(UserError, match="no file matches"):
        list_inputs([str(tmp_path / "*.none")])
    with pytest.raises(UserError, match="named twice"):
        list_inputs([str(tmp_path / "a.root"), str(tmp_path / "*.root")])


def _listing(folder, text, name="files.txt"):
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "sub" / name).write_text(text)
    return str(folder / "sub" / name)


def test_a_list_file_names_inputs_relative_to_itself(tmp_path):
    for name in ("sub/a.root", "b.root", "c.root"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    text = f"# data of today\n\n  a.root  # the first\n../[bc].root\nroot://host//d#1.root\n{tmp_path}/e"
    expected = [f"sub/{n}" for n in ("a.root", "../b.root", "../c.root")]
    expected = [*(f"{tmp_path}/{name}" for name in expected), "root://host//d#1.root"]
    listing, other = _listing(tmp_path, text), _listing(tmp_path, text, "of.any.name")
    assert list_inputs([listing, "f.root"]) == (*expected, f"{tmp_path}/e", "f.root")
    assert list_inputs([f"@{other}"]) == list_inputs([f"@{listing}"]) == list_inputs([listing])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n\n", r"files\.txt: lists no inputs; write a path"),
        ("a.root\n*.none  # all\n", r"no file matches \S+files\.txt: line 2: \*\.none; check"),
        ("a.root\na.root\n", r"sub/a\.root is named twice"),
        (None, r"absent\.txt: no such list of inputs; check the path"),
    ],
)
def test_a_wrong_list_file_gets_one_sentence(tmp_path, text, message):
    path = str(tmp_path / "absent.txt") if text is None else _listing(tmp_path, text)
    with pytest.raises(UserError, match=message):
        list_inputs([path])
