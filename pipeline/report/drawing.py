"""All panels of a report, drawn and saved by several processes at a time.

What takes time is matplotlib, which holds the lock of the interpreter. A panel depends on
the scene alone, so any number of processes writes the same bytes.
"""

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pipeline.progress import Shown
from pipeline.report.chapters import CHAPTERS
from pipeline.report.page import Picture, inline
from pipeline.report.panel import house_style, save_panel
from pipeline.report.study_data import Scene


class Drawn(NamedTuple):
    """A panel on the page, with the number of the paper's figure and its caption."""

    picture: Picture
    number: str
    caption: str


class _Place(NamedTuple):
    """One of the functions that draw a chapter's panels."""

    chapter: str
    function: int


class _Desk:
    """What a process draws from, and where to."""

    def __init__(self, scene: Scene, figures: Path) -> None:
        self.scene, self.figures = scene, figures

    def draw(self, place: _Place) -> list[Drawn]:
        """All panels of one function."""
        function = CHAPTERS[place.chapter].panels[place.function]
        with house_style():
            return [
                Drawn(
                    inline(save_panel(panel, self.figures, self.scene.settings.dpi), panel),
                    panel.number,
                    panel.caption,
                )
                for panel in function(self.scene)
            ]


_desk: _Desk  # of a process that was started to draw


def draw_panels(scene: Scene, figures: Path, processes: int) -> dict[str, list[Drawn]]:
    """The panels of each chapter, by its name, saved into a folder.

    Args:
        scene: What they show.
        figures: The folder, which exists.
        processes: How many draw at a time; with one it is this one.
    """
    places = [
        _Place(chapter.name, number)
        for chapter in CHAPTERS.values()
        for number in range(len(chapter.panels))
    ]
    drawn: dict[str, list[Drawn]] = {name: [] for name in CHAPTERS}
    with Shown("report", len(places), "drawings") as shown:
        for place, panels in zip(places, _draw(scene, figures, processes, places), strict=True):
            drawn[place.chapter] += panels
            shown.advance(1)
    return drawn


def _draw(
    scene: Scene, figures: Path, processes: int, places: list[_Place]
) -> Iterator[list[Drawn]]:
    if processes == 1:
        yield from map(_Desk(scene, figures).draw, places)
        return
    with _pool(scene, figures, processes) as pool:
        waiting: list[Future[list[Drawn]]] = [pool.submit(_draw_there, place) for place in places]
        for done in waiting:
            yield done.result()


@contextmanager
def _pool(scene: Scene, figures: Path, processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes with the scene; after an error what waits is given up."""
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, spawn, initializer=_sit_down, initargs=(scene, figures))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _sit_down(scene: Scene, figures: Path) -> None:
    global _desk  # noqa: PLW0603 - a pool's initializer has no other way to keep something
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who asked ends them
    _desk = _Desk(scene, figures)


def _draw_there(place: _Place) -> list[Drawn]:
    return _desk.draw(place)
