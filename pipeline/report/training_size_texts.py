"""What a scaling study found, as tables and in words."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.report.study_data import Scene
from pipeline.report.tables import MISSING, HtmlTable
from pipeline.training_size.fits import MORE

Row = Mapping[str, Any]
FEW_NETWORKS = 30  # below it the 1 / S of Eq. 42 is worth a word
AGREES = 0.1  # a ratio this close to 1, or within two of its errors, counts as agreement

BUDGET_WORDS = {
    "steps": "the same number of updates for every size, so that sizes differ by their data alone",
    "epochs": "the same number of epochs for every size: small samples see few updates, so their "
    "sigma_stat is that of an unfinished training as well",
}


def size_texts(scene: Scene) -> Iterator[str]:
    """Which budget each ladder had, then what sigma_stat is worth at its largest size."""
    rows = scene.table("scaling").to_pylist()
    for budget, words in BUDGET_WORDS.items():
        names = dict.fromkeys(row["ladder"] for row in rows if row["budget"] == budget)
        if names:
            yield f"{', '.join(names)}: {words}."
    for row in _largest(rows):
        if row.get("sigma_stat_over_spread_over_samples_log10") is not None:
            yield describe_spread(row)


def describe_spread(row: Row) -> str:
    """Whether sigma_stat is a statistical uncertainty, in a sentence.

    Args:
        row: Of the table `scaling`, with a spread over fresh samples.
    """
    ratio = row["sigma_stat_over_spread_over_samples_log10"]
    error = row.get("sigma_stat_over_spread_over_samples_log10_error")
    agrees = abs(ratio - 1.0) <= max(AGREES, 2.0 * (error or 0.0))
    verdict = (
        "it is a statistical uncertainty within the errors of this check"
        if agrees
        else "it is smaller than the statistical uncertainty of a network"
        if ratio < 1.0
        else "it is larger than the statistical uncertainty of a network"
    )
    found = (
        f"{row['ladder']} at {row['rows']:,} training rows: sigma_stat of log10 of the target is "
        f"{_number(ratio, error, 2)} of the spread of single networks on "
        f"{row['trainings_over_samples']} samples of that size, so {verdict}."
    )
    if row["networks"] < FEW_NETWORKS:
        found += (
            f" (Of {row['networks']} networks Eq. 42 finds only "
            f"{(1.0 - 1.0 / row['networks']) ** 0.5:.2f} of their spread.)"
        )
    seeds = row.get("spread_over_seeds_log10")
    if seeds is None:
        return found
    share = min((seeds / row["spread_over_samples_log10"]) ** 2, 1.0)
    return (
        f"{found} On one sample with other seeds the networks spread by "
        f"{_number(seeds, row.get('spread_over_seeds_log10_error'), 4)}, which is "
        f"{100 * share:.0f}% of the variance: the part that the training makes without new data."
    )


def size_tables(scene: Scene) -> Iterator[HtmlTable]:
    """Each ladder step by step, in log10 of the target."""
    rows = scene.table("scaling").to_pylist()
    if not rows:
        return
    yield HtmlTable(
        caption="Uncertainties of log10 of the target by training rows: medians over the test "
        "rows, means over trainings",
        head=(
            *("ladder", "rows", "updates", "sigma_syst", "over exact", "sigma_stat"),
            *("score above exact", "trainings"),
        ),
        rows=[
            [
                row["ladder"],
                f"{row['rows']:,}",
                f"{row['updates']:,}",
                _cell(row, "sigma_syst_log10_median", 4),
                _cell(row, "sigma_syst_log10_ratio_median", 3),
                _cell(row, "sigma_stat_log10_median", 4),
                _cell(row, "nll_excess", 4),
                f"{row['trainings']}",
            ]
            for row in rows
        ],
    )


def spread_tables(scene: Scene) -> Iterator[HtmlTable]:
    """Is sigma_stat a statistical uncertainty? Beside the real spreads, with their ratios."""
    rows = [
        row
        for row in scene.table("scaling").to_pylist()
        if any(row.get(f"spread_over_{kind}_log10") is not None for kind in ("samples", "seeds"))
    ]
    if not rows:
        return
    yield HtmlTable(
        caption="Is sigma_stat a statistical uncertainty? It beside the spread of single networks "
        "over fresh samples (each with its own seed) and over seeds on one sample; log10 of the "
        "target, typical of the tenths of the test rows",
        head=(
            *("ladder", "rows", "sigma_stat", "over samples", "over seeds"),
            *("predicted / samples", "predicted / seeds", "of the average, over samples"),
        ),
        rows=[
            [
                row["ladder"],
                f"{row['rows']:,}",
                _cell(row, "sigma_stat_log10_median", 4),
                _cell(row, "spread_over_samples_log10", 4),
                _cell(row, "spread_over_seeds_log10", 4),
                _cell(row, "sigma_stat_over_spread_over_samples_log10", 2),
                _cell(row, "sigma_stat_over_spread_over_seeds_log10", 2),
                _cell(row, "spread_of_average_over_samples_log10", 4),
            ]
            for row in rows
        ],
    )


def fit_tables(scene: Scene) -> Iterator[HtmlTable]:
    """The fits, what ten times the data would bring, and what is wrong with them."""
    rows = scene.table("scaling_fits").to_pylist()
    if not rows:
        return
    yield HtmlTable(
        caption=f"Fits in the number of training rows N, and what they predict for {MORE} times "
        "the largest sample",
        head=("ladder", "quantity", "form", "a", "p", "b", "chi2 / ndf", "predicted", "at N"),
        rows=[
            [
                row["ladder"],
                row["quantity"],
                row["form"],
                *(_cell(row, name, 4) for name in "apb"),
                MISSING if row["chi2"] is None else f"{row['chi2']:.3g} / {row['ndf']}",
                _cell(row, "predicted", 4),
                f"{row['predicted_rows']:,}",
            ]
            for row in rows
        ],
        notes=[". ".join(filter(None, (row["warning"], _reach(row)))) for row in rows],
    )


def _reach(row: Row) -> str:
    """Where sigma_stat no longer matters, as far as the fits tell."""
    share = row.get("negligible_share")
    if share is None:
        return ""
    if row.get("negligible_rows") is None:
        return f"never below {share:g} sigma_syst as far as the fits tell"
    found, low, high = (row[f"negligible_rows{end}"] for end in ("", "_low", "_high"))
    upper = f"{high:.2g}" if math.isfinite(high) else "any number"
    return f"below {share:g} sigma_syst from N = {found:.2g} on ({low:.2g} to {upper})"


def _largest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last step of each ladder that has a spread over samples."""
    last = {row["ladder"]: row for row in rows if row.get("spread_over_samples_log10") is not None}
    return list(last.values())


def _cell(row: Row, name: str, digits: int) -> str:
    value = row.get(name)
    return MISSING if value is None else _number(value, row.get(f"{name}_error"), digits)


def _number(value: float, error: float | None, digits: int) -> str:
    return f"{value:.{digits}f}" + ("" if error is None else f" \u00b1 {error:.{digits}f}")
