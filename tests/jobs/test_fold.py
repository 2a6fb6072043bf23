import functools
import operator
import time

import numpy as np
import pytest
from distributed import LocalCluster

from jobs.farm.dask import open_farm
from jobs.sites import DaskSettings
from pipeline.fold import fold, map_parts, merge_in_order
from pipeline.formats.errors import UserError


def _values(index: int):
    return np.random.default_rng(index).normal(size=100) * 10.0 ** (index % 9)


def _fail_at(index: int, *, bad: int):
    if index == bad:
        msg = f"part {index} is damaged"
        raise UserError(msg)
    return index


def test_results_come_in_the_order_of_the_items(client):
    assert map_parts(client, abs, [-3, 2, -1, 0], label="abs") == [3, 2, 1, 0]


def test_a_fold_has_the_same_bits_for_any_number_of_workers(client):
    items = list(range(70))
    here = merge_in_order([_values(i) for i in items], operator.add)
    two = fold(client, _values, items, operator.add, label="sum")
    with open_farm(DaskSettings(workers=1)) as single:
        one = fold(single, _values, items, operator.add, label="sum")
    assert here.tobytes() == two.tobytes() == one.tobytes()


def test_a_farm_that_does_not_end_in_time_fails_no_finished_work(monkeypatch, job_log):
    close = LocalCluster.close

    def close_late(farm):
        close(farm)
        raise TimeoutError

    monkeypatch.setattr(LocalCluster, "close", close_late)
    with open_farm(DaskSettings(workers=1)) as single:
        found = map_parts(single, abs, [-1], label="abs")
    assert found == [1]
    assert "dask: not everything has ended in time (TimeoutError)" in job_log


def test_the_merge_tree_is_groups_of_eight():
    merged = merge_in_order([str(i) for i in range(10)], lambda a, b: f"({a}+{b})")
    assert merged == "((((((((0+1)+2)+3)+4)+5)+6)+7)+(8+9))"


def test_an_error_of_a_part_reaches_the_caller_as_it_is(client):
    with pytest.raises(UserError, match="part 3 is damaged"):
        map_parts(client, functools.partial(_fail_at, bad=3), range(5), label="fail")


def test_a_second_fold_on_the_same_farm_does_not_reuse_the_first(client):
    assert map_parts(client, abs, [1], label="same") == [1]
    assert map_parts(client, abs, [-2], label="same") == [2]


def _touch_slowly(path):
    if path.name == "0":
        raise UserError("part 0 is damaged")
    time.sleep(0.1)
    path.touch()


def test_after_an_error_the_rest_is_left_undone(client, tmp_path):
    with pytest.raises(UserError, match="part 0 is damaged"):
        map_parts(client, _touch_slowly, [tmp_path / str(n) for n in range(200)], label="slow")
    assert len(list(tmp_path.iterdir())) < 150
