"""What a batch log says of work in progress."""

import logging
import time

import pytest

from pipeline import progress
from pipeline.progress import Shown


@pytest.fixture
def lines(monkeypatch, caplog):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.05)
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.01)
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


def wait_until(found):
    end = time.monotonic() + 30.0
    while not found():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_it_is_never_silent(lines):
    """Also before the first piece is done, and not after the end."""
    with Shown("calibrate", 3, "parts") as shown:
        wait_until(lambda: len(lines()) >= 2)
        assert set(lines()) == {"calibrate: 0 of 3 parts (0 %) after 0:00"}
        shown.advance(1)
        wait_until(lambda: "1 of 3 parts (33 %)" in lines()[-1])
    told = len(lines())
    time.sleep(0.2)
    assert len(lines()) == told


def test_what_counts_nothing_tells_the_time(lines):
    with Shown("search trees", 24, "fits", counts=False):
        wait_until(lines)
    assert lines()[0] == "search trees: 24 fits, for 0:00"


def test_the_rate_is_that_after_the_first_piece(monkeypatch):
    """Which has waited for a start."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = Shown("report", 37, "drawings")
    shown._began = shown._told = 0.0
    shown.advance(1)
    assert shown._rate(now[0]) == pytest.approx(0.01)
    now[0] = 104.0
    shown.advance(8)
    assert shown._rate(now[0]) == pytest.approx(2.0)
    assert shown.describe(2.0, 104.0) == "report: 9 of 37 drawings (24 %), 120/min, 0:14 left"
