"""The tables of the page: headline figures with their meaning, rows, cuts and models.

Provenance tables show records of the jobs, software, fingerprints and settings.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.evaluation.rows import BASELINE, EVERYWHERE, VERSUS
from pipeline.formats.card import ModelCard
from pipeline.formats.manifest import SPLITS
from pipeline.report.math_text import decimals_of
from pipeline.report.study_data import Scene

MISSING = "\u2013"


@dataclass(frozen=True, slots=True)
class HtmlTable:
    """A table of words.

    Attributes:
        caption: One line above it.
        head: Titles of the columns.
        rows: Cells; the first of a row names it.
        notes: A last column of words; empty for none.
        of_words: Whether its cells are sentences, which may be broken into lines.
        marks: Cells that are shown in the colour of a judgement.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    of_words: bool = False
    marks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a headline figure is, how it is written and what the paper says of it.

    In `words` {space} stands for the transformed target.
    """

    title: str
    words: str
    percent: bool = False
    digits: int = 3
    paper: str = MISSING


MEANINGS = {
    "nll": Meaning("score", "mean negative log density of {space}; lower is better"),
    "nll_excess": Meaning(
        "score above exact", "information lost against the exact density; 0 is the limit"
    ),
    "rows_without_density": Meaning(
        "rows without density",
        "rows whose true value gets no finite log density; there is no score while there are any",
        digits=0,
    ),
    "crps": Meaning(
        "CRPS",
        "mean continuous ranked probability score of {space}, of a single number its mean absolute "
        "error; lower is better",
        digits=4,
    ),
    "crps_excess": Meaning("CRPS above exact", "the same less the exact density's", digits=4),
    "sharpness68": Meaning("sharpness", "mean width of the central 68% interval of {space}"),
    "pit_ks": Meaning("PIT distance", "largest deviation of the PIT from uniform; 0 is perfect"),
    "coverage68": Meaning(
        "68% coverage", "share of true values inside the central 68% interval", True, 1
    ),
    "coverage95": Meaning(
        "95% coverage", "share of true values inside the central 95% interval", True, 1
    ),
    "sigma_log10_ratio_median": Meaning(
        "uncertainty over exact", "median of the total uncertainty of {space} over the exact one"
    ),
    "closure_max": Meaning(
        "closure", "largest binned median deviation of calibrated from true", True, 2, "< 2%"
    ),
    "closure_vs_oracle_max": Meaning(
        "closure against exact", "the same after subtracting the exact density's own", True, 2
    ),
    "resolution_ratio_to_em": Meaning(
        "resolution over uncalibrated",
        "ratio of relative resolutions, median over the bins of closure; below 1 is a gain",
        paper="< 1",
    ),
    "pull_width": Meaning(
        "pull width",
        "fitted core width of the pull; compare with the exact density's, not with 1",
        paper="< 1",
    ),
    "sigma_core_width": Meaning(
        "width of relative difference",
        "of the two sets' uncertainties, fitted core",
        percent=True,
        digits=1,
        paper="10%",
    ),
    "correlation_t_log": Meaning(
        "correlation of pulls", "of the two sets' pulls of {space}", paper="high"
    ),
    "central_max": Meaning(
        "largest shift", "of the two sets' central values, binned medians", True, 2
    ),
}

# Figures that are defined otherwise for a region than for all rows.
REGION_MEANINGS = {
    "resolution_ratio_to_em": Meaning(
        "resolution over uncalibrated",
        "ratio of relative resolutions of the region's rows taken together, not a median over "
        "bins as for all rows; below 1 is a gain",
    ),
}


def headline_tables(scene: Scene) -> Iterator[HtmlTable]:
    """The summary with models beside the reference: all rows, then each region, then pairs."""
    names, summary = [*scene.sets, BASELINE], scene.summary
    tables = []
    for population in scene.populations:
        suffix = "" if population == EVERYWHERE else f".{population}"
        words = f"All {scene.split} rows" if population == EVERYWHERE else f"Region {population}"
        tables.append(_figures(scene, summary, words, names, suffix))
    pairs = dict.fromkeys(key.split(".")[0] for key in summary if VERSUS in key.split(".")[0])
    if pairs:
        tables.append(_figures(scene, summary, "Pairs of models", list(pairs), ""))
    yield from (table for table in tables if table.rows)


def dataset_tables(scene: Scene) -> Iterator[HtmlTable]:
    """Rows by split, the cut flow and floored rows."""
    if scene.manifest is None:
        return
    manifest = scene.manifest
    total = sum(part.rows for part in manifest.parts)
    splits = [
        [split, _whole(rows), _share(rows, total), str(len(manifest.parts_of(split)))]
        for split in SPLITS
        if (rows := manifest.rows_of(split))
    ]
    cuts = [
        [cut.rule, _whole(cut.before), _whole(cut.after), _share(cut.after, cut.before)]
        for cut in manifest.cut_flow
    ]
    floors = [
        [floor.column, f"{floor.floor:g}", _whole(floor.rows), _share(floor.rows, total)]
        for floor in manifest.floors
    ]
    tables = [
        HtmlTable("Rows by split", ("split", "rows", "share", "parts"), splits),
        HtmlTable("Cuts in order", ("cut", "rows before", "rows after", "kept"), cuts),
        HtmlTable("Values raised to a floor", ("column", "floor", "rows", "share"), floors),
    ]
    yield from (table for table in tables if table.rows)


def model_tables(scene: Scene) -> Iterator[HtmlTable]:
    """What was trained, from the models' cards."""
    if scene.cards:
        yield _model_table(scene, scene.cards)


def _model_table(scene: Scene, cards: Mapping[str, ModelCard]) -> HtmlTable:
    facts = {
        "kind": [card.kind for card in cards.values()],
        "density": [card.density.replace("_", " ") for card in cards.values()],
        "features": [str(len(card.inputs)) for card in cards.values()],
        "networks": [str(card.num_networks or MISSING) for card in cards.values()],
        "components": [str(card.num_components or MISSING) for card in cards.values()],
        "commit": [_short_commit(card.git_hash) for card in cards.values()],
    }
    for score in dict.fromkeys(key for card in cards.values() for key in card.scores):
        values = [card.scores.get(score) for card in cards.values()]
        facts[score.replace("_", " ")] = [MISSING if v is None else f"{v:.4g}" for v in values]
    head = ("model", *(scene.look(name).label for name in cards))
    rows = [[fact, *values] for fact, values in facts.items()]
    return HtmlTable("Models", head, rows)


def _short_commit(git_hash: str) -> str:
    return git_hash[:12] + ("+" if git_hash.endswith("+changes") else "")


def score_tables(scene: Scene) -> Iterator[HtmlTable]:
    """Scores with their statistical errors, by set and population."""
    rows = []
    lines = [row for row in scene.table("scores").to_pylist() if row["nll"] is not None]
    bare = any(row["rows_without_density"] for row in lines)
    for row in lines:
        errors = ("nll", "nll_excess", "coverage68", "coverage95")
        cells = [_with_error(row[name], row[name + "_error"]) for name in errors]
        domain = MISSING if row["in_domain"] is None else f"{100 * row['in_domain']:.2f}%"
        label = scene.look(row["set"]).label
        last = [str(row["rows_without_density"])] if bare else []
        rows.append([label, row["population"], _whole(row["rows"]), *cells, domain, *last])
    head = (
        *("set", "population", "rows", "score", "above exact", "68% coverage", "95% coverage"),
        *(("in training range", "rows without density") if bare else ("in training range",)),
    )
    if rows:
        yield HtmlTable("Scores with statistical errors", head, rows)


def _figures(
    scene: Scene, summary: Mapping[str, float], caption: str, names: list[str], suffix: str
) -> HtmlTable:
    rows, notes = [], []
    meanings = MEANINGS | REGION_MEANINGS if suffix else MEANINGS
    for figure, meaning in meanings.items():
        found = [summary.get(f"{name}.{figure}{suffix}") for name in names]
        if any(value is not None for value in found):
            rows.append([
                meaning.title,
                meaning.paper,
                *(_number(value, meaning) for value in found),
            ])
            notes.append(meaning.words.format(space=scene.target.space))
    labels = [" / ".join(scene.look(part).label for part in name.split(VERSUS)) for name in names]
    return HtmlTable(caption, ("figure", "paper", *labels, "meaning"), rows, notes)


def _number(value: float | None, meaning: Meaning) -> str:
    if value is None:
        return MISSING
    if meaning.percent:
        return f"{100 * value:.{meaning.digits}f}%"
    return f"{value:.{meaning.digits}f}"


def _with_error(value: float | None, error: float | None) -> str:
    if value is None or error is None:
        return MISSING
    digits = decimals_of(error, fewest=0, without=4)
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _whole(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")  # a thin space, which no reader takes for a comma


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}%" if whole else MISSING


def record_tables(scene: Scene) -> Iterator[HtmlTable]:
    """Runs with their time and memory, versions of the software, fingerprints of what was made."""
    runs = [
        [
            job,
            str(record.get("git_hash", MISSING))[:12],
            f"{record.get('wall_seconds', 0):.1f} s",
            f"{record.get('peak_memory_mib', 0)} MiB",
            _words(record.get("counts", {})) or MISSING,
        ]
        for job, record in scene.records.items()
    ]
    if runs:
        head = ("job", "commit", "wall time", "peak memory", "counts")
        yield HtmlTable("Runs", head, runs, of_words=True)
    versions: dict[str, str] = {}
    made: dict[str, str] = {}
    if scene.manifest is not None:
        versions |= scene.manifest.versions
        made["dataset"] = scene.manifest.fingerprint
    for name, card in scene.cards.items():
        versions |= card.versions
        made[f"model {name}"] = card.fingerprint
    for record in scene.records.values():
        versions |= record.get("versions", {})
    if versions:
        yield HtmlTable("Software", ("package", "version"), [list(v) for v in versions.items()])
    if made:
        yield HtmlTable("Fingerprints", ("of", "fingerprint"), [list(f) for f in made.items()])


def _words(counts: Mapping[str, Any]) -> str:
    """Numbers with their names, those within a count in brackets; lists are left out."""
    words = [
        f"{name.replace('_', ' ')} ({_words(count)})"
        if isinstance(count, Mapping)
        else f"{name.replace('_', ' ')} {count}"
        for name, count in counts.items()
        if isinstance(count, (Mapping, int, float))
    ]
    return ", ".join(words)


def settings_listing(scene: Scene) -> Iterator[tuple[str, str]]:
    """The study as it was resolved."""
    if scene.study:
        text = yaml.safe_dump(dict(scene.study), sort_keys=False, allow_unicode=True)
        yield "Settings of the study, with all defaults", text
