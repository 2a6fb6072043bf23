"""The chapters of the page, in their order; a chapter with nothing to show is left out.

To add one: a module with functions that take the scene and yield panels, tables or paragraphs,
and a line here. A function whose tables the study lacks yields nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from pipeline.formats.plugins import Table
from pipeline.report import tables, training_size_texts
from pipeline.report.figures import (
    closure,
    comparison,
    densities,
    lookup_table,
    maps,
    planes,
    scores,
    spectra,
    tagging,
    training,
    training_size,
)
from pipeline.report.panel import Panel
from pipeline.report.statements import table as statements
from pipeline.report.study_data import Scene
from pipeline.report.tables import HtmlTable


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of the page before it is drawn.

    Attributes:
        name: Its anchor.
        title: Its heading.
        words: What it shows and what to look for.
        texts: Make paragraphs.
        tables: Make tables.
        panels: Draw panels.
        listings: Make titled texts that are folded away.
    """

    name: str
    title: str
    words: str
    texts: tuple[Callable[[Scene], Iterator[str]], ...] = ()
    tables: tuple[Callable[[Scene], Iterator[HtmlTable]], ...] = ()
    panels: tuple[Callable[[Scene], Iterator[Panel]], ...] = ()
    listings: tuple[Callable[[Scene], Iterator[tuple[str, str]]], ...] = ()


CLOSURE = (
    "Calibrated over true value. A model has learned what can be learned where it follows the "
    "exact density; the uncalibrated scale shows what the calibration gains."
)
EDGE = (
    "Binned in the true value even the exact density is off near a cut: compare with it there, "
    "not with zero."
)

_OWN = (
    Chapter(
        "headline",
        "Headline figures",
        "Each model beside the exact density, which is the limit, where the sample has one.",
        tables=(tables.headline_tables,),
    ),
    Chapter(
        "statements",
        "Statements of the paper",
        "What the paper says of its figures, and what this study finds, measured from the tables "
        "behind the figures below. The same measurement on the exact density tells what could be "
        "found at best.",
        tables=(statements.statement_tables,),
    ),
    Chapter(
        "figure-1",
        "Figure 1: spectra by class",
        "Which energies and responses the sample holds, by what deposited the energy.",
        panels=(partial(spectra.spectrum_panels, figure="1"),),
    ),
    Chapter(
        "figure-4",
        "Figure 4: target against true energy",
        "Predictions are sharper than the target, since they leave its spread out, but every "
        "ridge of the target should be there.",
        panels=(partial(planes.plane_panels, figure="4"),),
    ),
    Chapter(
        "figure-5",
        "Figure 5: target against features",
        "The ridges of the target must reappear in the predictions at the same place.",
        panels=(partial(planes.plane_panels, figure="5"),),
    ),
    Chapter(
        "figure-6",
        "Figure 6: prediction power",
        "Predicted over true target. Means lie above medians where the distribution has a tail. "
        + EDGE,
        panels=(partial(closure.prediction_panels, figure="6"),),
    ),
    Chapter(
        "figure-7",
        "Figure 7: signal linearity",
        f"{CLOSURE} {EDGE}",
        panels=(partial(closure.closure_panels, figure="7"),),
    ),
    Chapter(
        "figure-8",
        "Figure 8: linearity against shape and pile-up",
        CLOSURE,
        panels=(partial(closure.closure_panels, figure="8"),),
    ),
    Chapter(
        "figure-9",
        "Figure 9: relative resolution",
        "Models should lie below the uncalibrated scale and on the exact density; below that one "
        "something is wrong.",
        panels=(partial(closure.resolution_panels, figure="9"),),
    ),
    Chapter(
        "scaling",
        "Figure 10: uncertainties against training rows",
        "With more data sigma_syst should approach the exact density's and sigma_stat should "
        "fall; whether sigma_stat is a statistical uncertainty only the real spread of networks "
        "tells, which a single training cannot know.",
        texts=(training_size_texts.size_texts,),
        tables=(
            training_size_texts.spread_tables,
            training_size_texts.size_tables,
            training_size_texts.fit_tables,
        ),
        panels=(
            training_size.size_panels,
            training_size.spread_panels,
            training_size.tenth_panels,
            training_size.excess_panels,
        ),
    ),
    Chapter(
        "figure-11",
        "Figure 11: uncertainties of two models",
        "Two ways to the same uncertainty should agree row by row.",
        panels=(partial(planes.pair_plane_panels, figure="sigma_rel"), densities.pair_panels),
    ),
    Chapter(
        "figure-12",
        "Figure 12: pulls",
        "The fitted core must agree with the exact density's, whose width is not 1: uncertainties "
        "count tails that the core does not have.",
        panels=(partial(planes.pair_plane_panels, figure="t_log"), densities.pull_panels),
    ),
    Chapter(
        "figure-13",
        "Figure 13: spectrum of the uncertainty",
        "The total should follow the exact density's spectrum, extra peaks included.",
        panels=(partial(densities.sigma_panels, parts=("sigma_tot",)),),
    ),
    Chapter(
        "figure-14",
        "Figure 14: where large uncertainties lie",
        "The extra peak of the uncertainty belongs to clusters in or near the scintillators of "
        "the gap between the calorimeters.",
        panels=(maps.map_panels,),
    ),
    Chapter(
        "figure-16",
        "Figure 16: features by class",
        "How the classes share the range of each feature.",
        panels=(partial(spectra.spectrum_panels, figure="16"),),
    ),
    Chapter(
        "figure-17",
        "Figure 17: more features by class",
        "How the classes share the range of each feature.",
        panels=(partial(spectra.spectrum_panels, figure="17"),),
    ),
    Chapter(
        "figure-18",
        "Figure 18: linearity against more features",
        CLOSURE,
        panels=(partial(closure.closure_panels, figure="18"),),
    ),
    Chapter(
        "figure-19",
        "Figure 19: slices of true energy",
        "The whole distribution in some bins of true energy: medians and widths hide its tails.",
        panels=(spectra.slice_panels,),
    ),
    Chapter(
        "selection",
        "Use of the uncertainty",
        "Dropping the rows of the largest relative uncertainty should leave a better "
        "resolution and smaller tails; no ranking can do better than the exact density's.",
        panels=(scores.selection_panels,),
    ),
    Chapter(
        "score",
        "Score of the density",
        "The mean negative log density is proper: the exact density has the lowest value, and "
        "the distance to it is the information a model misses. A model must beat the histogram.",
        tables=(tables.score_tables,),
        panels=(scores.nll_panels, scores.score_profile_panels),
    ),
    Chapter(
        "calibration",
        "Honesty of the density",
        "The probability integral transform is flat when quantiles are right; a dip in the "
        "middle means too narrow a density, a hump too wide a one. Coverage says the same of "
        "intervals.",
        panels=(densities.pit_panels, scores.coverage_panels, scores.coverage_curve_panels),
    ),
    Chapter(
        "uncertainty",
        "More on uncertainties",
        "The statistical part should be small and fall with more training rows; the total should "
        "agree with the exact one row by row, and the pull should depend on nothing.",
        panels=(
            partial(densities.sigma_panels, parts=("sigma_syst", "sigma_stat")),
            densities.sigma_ratio_panels,
            closure.pull_profile_panels,
        ),
    ),
    Chapter(
        "more-axes",
        "Linearity against other axes",
        CLOSURE,
        panels=(closure.other_panels,),
    ),
    Chapter(
        "lookup",
        "Look-up tables",
        "What the bins of a look-up table hold, a mean over the axes that are not shown. The "
        "calibrated value jumps at every edge, and is blind to what is not binned.",
        panels=(lookup_table.lookup_panels,),
    ),
    Chapter(
        "comparison",
        "All models side by side",
        "The score is proper: the exact density has the lowest. Medians should follow the exact "
        "density's and not zero; a resolution below it is wrong somewhere else.",
        tables=(comparison.tables,),
        panels=(comparison.panels,),
    ),
    Chapter(
        "tagger",
        "Training-resistant clusters",
        "What no regression can learn is tagged and may be left out. The tagger cannot find more "
        "than the features tell: compare it with the exact probability. Its rate should rise with "
        "pile-up.",
        texts=(tagging.texts,),
        tables=(tagging.tables,),
        panels=(tagging.rate_panels, tagging.curve_panels, tagging.position_panels),
    ),
    Chapter(
        "training",
        "Training",
        "Training and validation should fall together and settle; a validation curve that "
        "rises while training falls is overtraining.",
        texts=(training.repulsion_texts,),
        tables=(tables.model_tables,),
        panels=(training.loss_panels,),
    ),
    Chapter(
        "dataset",
        "Dataset",
        "How many rows each cut removes, and how many are left in each split.",
        tables=(tables.dataset_tables,),
    ),
    Chapter(
        "records",
        "Run records and settings",
        "What was run, with which software, and the settings in full: a study with these settings "
        "gives these figures again.",
        tables=(tables.record_tables,),
        listings=(tables.settings_listing,),
    ),
)

CHAPTERS = Table(lambda: {chapter.name: chapter for chapter in _OWN}, "chapters", Chapter)
