"""Write the report of a study from its tables: nothing is evaluated again."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.formats.card import ModelCard
from pipeline.formats.files import write_text
from pipeline.formats.manifest import DatasetManifest, Split
from pipeline.report import densities, lookup, planes, profiles, scores
from pipeline.report.canvas import Panel, house_style, save_panel
from pipeline.report.headline import dataset_tables, headline_tables, model_table, score_table
from pipeline.report.losses import History, loss_panels
from pipeline.report.page import Picture, Section, inline, render_page
from pipeline.report.scene import Scene
from pipeline.report.settings import ReportSettings

PAGE = "index.html"
FIGURES = "figures"


@dataclass(frozen=True, slots=True)
class Chapter:
    """A section before it is drawn."""

    name: str
    title: str
    look_for: str
    draw: tuple[Callable[[Scene], Iterator[Panel]], ...]


CHAPTERS = (
    Chapter(
        "prediction",
        "Prediction power",
        "Predicted over true target. The median should lie at zero wherever the exact density's "
        "does; means lie above medians where the distribution has a tail. Binned in the "
        "denominator even the exact density is off near a cut: compare with it, not with zero.",
        (profiles.prediction_panels,),
    ),
    Chapter(
        "closure",
        "Closure",
        "Calibrated over true value, with narrowest 68% bands and statistical bars. A model has "
        "learned what can be learned where it follows the exact density; the uncalibrated scale "
        "shows what the calibration gains.",
        (profiles.closure_panels,),
    ),
    Chapter(
        "resolution",
        "Resolution",
        "Half the narrowest 68% interval over the median. Models should lie below the "
        "uncalibrated scale and on the exact density; below that one something is wrong.",
        (profiles.resolution_panels,),
    ),
    Chapter(
        "score",
        "Score of the density",
        "The mean negative log density is proper: the exact density has the lowest value, and "
        "the distance to it is the information a model misses. A model must beat the histogram.",
        (scores.nll_panels,),
    ),
    Chapter(
        "calibration",
        "Honesty of the density",
        "The probability integral transform is flat when quantiles are right; a dip in the "
        "middle means too narrow a density, a hump too wide a one. Coverage says the same of "
        "two intervals.",
        (densities.pit_panels, scores.coverage_panels),
    ),
    Chapter(
        "pull",
        "Pulls",
        "The fitted core (thick lines) must agree with the exact density's, whose width is not "
        "1 where uncertainties count tails that the core does not have.",
        (densities.pull_panels, profiles.pull_profile_panels),
    ),
    Chapter(
        "uncertainty",
        "Uncertainties",
        "The total should follow the exact density's spectrum, extra peaks included; the "
        "statistical part should be small and fall with more training rows. The last panels "
        "compare row by row.",
        (densities.sigma_panels, densities.sigma_ratio_panels, densities.pair_panels),
    ),
    Chapter(
        "plane",
        "Target in two dimensions",
        "Predictions are sharper than the target, since they leave its spread out, but every "
        "ridge of the target should be there.",
        (planes.plane_panels,),
    ),
    Chapter(
        "lookup",
        "Look-up tables",
        "What the bins of a look-up table hold, a mean over the axes that are not shown. The "
        "calibrated value jumps at every edge, and is blind to what is not binned.",
        (lookup.lookup_panels,),
    ),
)


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
) -> None:
    """Write `index.html` and `figures/*.svg`, `.pdf`, `.csv`; the same input gives the same bytes.

    Args:
        folder: Folder of the report; figures of an earlier report in it are removed, the page
            is written last.
        study_name: Of the study.
        manifest: Of the dataset; with truth.
        summary: Headline figures by name.
        tables: As `Evaluation.tables` makes them, or read back from their files.
        cards: By model; may be empty.
        histories: By model: the lines of its history; may be empty.
        settings: Of the report.
        split: The split that was evaluated.

    Raises:
        ValueError: The dataset has no target.
    """
    if manifest.target is None:
        msg = "a dataset without truth cannot be evaluated, so there is nothing to report"
        raise ValueError(msg)
    simulated = any(file.simulation is not None for file in manifest.inputs)
    sample = settings.sample or ("Simulated sample" if simulated else study_name)
    scene = Scene(tables, settings, manifest.target, sample, split)
    figures = _clean(folder / FIGURES)
    with house_style():
        sections = [
            Section(
                "headline",
                "Headline figures",
                "Each model beside the exact density, where the sample has one.",
                tables=headline_tables(scene, summary),
            ),
            *_draw_chapters(scene, figures),
            *_draw_training(scene, figures, cards, histories),
        ]
    sections.append(_dataset_section(manifest))
    page = render_page(
        title=settings.title or study_name,
        sample=sample,
        facts=_facts(scene, manifest),
        text=settings.description or "",
        sections=sections,
    )
    write_text(folder / PAGE, page)


def _draw_chapters(scene: Scene, figures: Path) -> Iterator[Section]:
    for chapter in CHAPTERS:
        panels = (panel for draw in chapter.draw for panel in draw(scene))
        pictures = [_save(panel, figures, scene) for panel in panels]
        words = [score_table(scene, scene.tables["scores"])] if chapter.name == "score" else []
        if pictures:
            yield Section(chapter.name, chapter.title, chapter.look_for, pictures, words)


def _draw_training(
    scene: Scene, figures: Path, cards: Mapping[str, ModelCard], histories: Mapping[str, History]
) -> Iterator[Section]:
    pictures = [_save(panel, figures, scene) for panel in loss_panels(scene, histories)]
    words = [model_table(scene, cards)] if cards else []
    if pictures or words:
        yield Section(
            "training",
            "Training",
            "Training and validation should fall together and settle; a validation curve that "
            "rises while training falls is overtraining.",
            pictures,
            words,
        )


def _dataset_section(manifest: DatasetManifest) -> Section:
    look_for = "How many rows each cut removes, and how many are left in each split."
    return Section("dataset", "Dataset", look_for, tables=dataset_tables(manifest))


def _facts(scene: Scene, manifest: DatasetManifest) -> dict[str, str]:
    target = scene.target
    labels = [scene.look(name).label for name in scene.models]
    train, evaluated = manifest.rows_of("train"), manifest.rows_of(scene.split)
    return {
        "Target": f"{target.name} = {target.numerator} / {target.denominator}",
        "Calibrated": f"{target.calibrated} = {target.numerator} / predicted {target.name}",
        "Features": ", ".join(feature.name for feature in manifest.features),
        "Models": ", ".join(labels) or "none",
        "Rows": f"{train:,} to train; evaluated: {evaluated:,} of the {scene.split} split",
        "Dataset": manifest.fingerprint,
        "Method": "ATLAS Collaboration, arXiv 2412.04370",
    }


def _save(panel: Panel, figures: Path, scene: Scene) -> Picture:
    svg = save_panel(panel, figures, scene.settings.dpi)
    return inline(svg, panel.name, panel.caption)


def _clean(figures: Path) -> Path:
    """The folder of figures without those of an earlier report."""
    figures.mkdir(parents=True, exist_ok=True)
    for pattern in ("*.svg", "*.pdf", "*.csv"):
        for old in figures.glob(pattern):
            old.unlink()
    return figures
