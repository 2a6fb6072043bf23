"""Write the report of a study from its tables: nothing is evaluated again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from markupsafe import Markup

from pipeline.formats.card import ModelCard
from pipeline.formats.files import write_text
from pipeline.formats.manifest import DatasetManifest, Split
from pipeline.report.chapters import CHAPTERS, Chapter
from pipeline.report.drawing import Drawn, draw_panels
from pipeline.report.hepdata import SUBMISSION, submission
from pipeline.report.page import Section, render_page
from pipeline.report.settings import ReportSettings
from pipeline.report.study_data import History, Scene

PAGE = "index.html"
FIGURES = "figures"


def write_report(  # noqa: PLR0913 - all by keyword, one for each thing that a study leaves
    folder: Path,
    *,
    study_name: str,
    manifest: DatasetManifest,
    summary: Mapping[str, float],
    tables: Mapping[str, pa.Table],
    cards: Mapping[str, ModelCard],
    histories: Mapping[str, History],
    settings: ReportSettings,
    split: Split = "test",
    records: Mapping[str, Mapping[str, Any]] | None = None,
    study: Mapping[str, Any] | None = None,
    processes: int = 1,
) -> None:
    """Write `index.html` and `figures/*.svg`, `.pdf`, `.csv`, `.yaml`.

    The same input gives the same bytes.

    Args:
        folder: Folder of the report; figures of an earlier report in it are removed, the page
            is written last.
        study_name: Of the study.
        manifest: Of the dataset; with truth.
        summary: Headline figures by name.
        tables: As `Evaluation.tables` makes them, or read back from their files; those of other
            jobs beside them.
        cards: By model; may be empty.
        histories: By model: the lines of its history; may be empty.
        settings: Of the report.
        split: The split that was evaluated.
        records: By job: what it recorded of its last run; None for none.
        study: The settings of the study; None for none.
        processes: That draw at a time.

    Raises:
        ValueError: The dataset has no target.
    """
    if manifest.target is None:
        msg = "a dataset without truth cannot be evaluated, so there is nothing to report"
        raise ValueError(msg)
    simulated = any(file.simulation is not None for file in manifest.inputs)
    scene = Scene(
        tables=tables,
        settings=settings,
        target=manifest.target,
        sample=settings.sample or ("Simulated sample" if simulated else study_name),
        split=split,
        summary=summary,
        manifest=manifest,
        cards=cards,
        histories=histories,
        records=records or {},
        study=study or {},
    )
    figures = _clean(folder / FIGURES)
    drawn = draw_panels(scene, figures, processes)
    made = (_make_section(chapter, scene, drawn[name]) for name, chapter in CHAPTERS.items())
    sections = [section for section in made if section is not None]
    title = settings.title or study_name
    comment = f"Figures of the study {study_name}, {scene.sample}; not made by ATLAS"
    panels = [
        (panel.picture.name, panel.number, panel.caption)
        for each in drawn.values()
        for panel in each
    ]
    write_text(figures / SUBMISSION, submission(panels, comment))
    page = render_page(
        title=title,
        sample=scene.sample,
        facts=_facts(scene, manifest),
        text=settings.description or "",
        sections=sections,
    )
    write_text(folder / PAGE, page)


def write_overview(
    folder: Path,
    *,
    title: str,
    targets: Sequence[tuple[DatasetManifest, Mapping[str, float]]],
) -> None:
    """Write the page that leads to the reports of several targets.

    Args:
        folder: That holds a folder for each target.
        title: Of the study.
        targets: Views of the dataset, each with the headline figures of its target.
    """
    rows = []
    for manifest, summary in targets:
        target = manifest.require_target()
        link = Markup('<a href="{0}/index.html">{0}</a>').format(target.name)
        sets = ", ".join(dict.fromkeys(key.partition(".")[0] for key in summary))
        rows.append((target, link, sets))
    page = render_page(
        title=title,
        sample=f"{len(rows)} targets, each with a report of its own",
        facts={
            target.name: Markup("{}: {}; {} = {}; evaluated: {}").format(
                link, target.definition, target.calibrated, target.inversion, sets
            )
            for target, link, sets in rows
        },
        text="",
        sections=[],
    )
    write_text(folder / PAGE, page)


def _make_section(chapter: Chapter, scene: Scene, drawn: Sequence[Drawn]) -> Section | None:
    """A chapter with its panels; None if it has nothing to show."""
    section = Section(
        name=chapter.name,
        title=chapter.title,
        words=chapter.words,
        texts=[text for make in chapter.texts for text in make(scene)],
        tables=[table for make in chapter.tables for table in make(scene)],
        pictures=[panel.picture for panel in drawn],
        listings=[listing for make in chapter.listings for listing in make(scene)],
    )
    has_any = section.texts or section.tables or section.pictures or section.listings
    return section if has_any else None


def _facts(scene: Scene, manifest: DatasetManifest) -> dict[str, str]:
    target = scene.target
    labels = [scene.look(name).label for name in scene.models]
    train, evaluated = manifest.rows_of("train"), manifest.rows_of(scene.split)
    return {
        "Target": f"{target.name} = {target.definition}",
        "Calibrated": f"{target.calibrated} = {target.inversion}",
        "Features": ", ".join(feature.name for feature in manifest.features),
        "Models": ", ".join(labels) or "none",
        "Rows": f"{train:,} to train; evaluated: {evaluated:,} of the {scene.split} split",
        "Dataset": manifest.fingerprint,
        "Method": "ATLAS Collaboration, arXiv 2412.04370",
    }


def _clean(figures: Path) -> Path:
    """The folder of figures without those of an earlier report."""
    figures.mkdir(parents=True, exist_ok=True)
    for pattern in ("*.svg", "*.pdf", "*.csv", "*.yaml"):
        for old in figures.glob(pattern):
            old.unlink()
    return figures
