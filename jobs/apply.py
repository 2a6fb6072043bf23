"""Calibrate anybody's clusters with a finished model; every cluster comes back.

Run: topocal apply MODEL INPUT [INPUT ...] OUTPUT [SITE.yaml ...] [key=value ...]
MODEL is a folder with model.json; an INPUT is a ROOT or Parquet file, a root:// URL, a glob of
either, a folder of Parquet parts, or a file that lists inputs line by line (FILE.txt or @FILE);
OUTPUT is a folder. Writes for each input a friend tree (NAME.topocal.root, tree topocal) or
Parquet, and manifest.json. Needs neither a study nor truth, torch or Ray.
"""

import functools
import logging
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from distributed import Client

from jobs.farm.dask import open_access, open_farm
from jobs.launch import run_tool
from jobs.settings import load_settings
from jobs.sites import DaskSettings
from pipeline.apply.inputs import Input, RootInput, open_input
from pipeline.apply.rows import Calibration, Reason
from pipeline.apply.run import (
    PARTS,
    AppliedFile,
    AppliedManifest,
    apply_chunk,
    describe_input,
    finish_input,
    plan_input,
)
from pipeline.apply.settings import ApplySettings
from pipeline.calibrators.protocol import Calibrator
from pipeline.calibrators.registry import open_calibrator
from pipeline.fold import map_parts
from pipeline.formats.calibrated_set import CalibratedColumn, describe_columns
from pipeline.formats.card import ModelCard, read_card
from pipeline.formats.errors import UserError
from pipeline.formats.folders import CLAIM, replacing_folder
from pipeline.formats.manifest import MANIFEST
from pipeline.formats.versions import fingerprint, versions_of
from pipeline.root.files import Access
from pipeline.root.inspect import MODEL_PURPOSE, Wanted, list_inputs
from pipeline.root.layout import read_layout
from pipeline.root.remote import server_of

log = logging.getLogger(__name__)

VERSION = 2
USAGE = "topocal apply MODEL INPUT [INPUT ...] OUTPUT [SITE.yaml ...] [key=value ...]"


class AppliedSettings(ApplySettings):
    """The settings of `apply` with those of the site."""

    dask: DaskSettings = DaskSettings()


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit status of jobs/launch.py."""
    if set(argv) & {"-h", "--help"}:
        keys = ", ".join(AppliedSettings.model_fields)
        sys.stdout.write(f"usage: {USAGE}\n\n{__doc__}\nKeys: {keys}.\n")
        return 0
    return run_tool("apply", functools.partial(_apply, argv))


def _apply(argv: Sequence[str]) -> None:
    model, inputs, output, settings = _parse(argv)
    card = read_card(model)
    card.require_files(model, made_by="train")
    calibration, columns = prepare(model, card, settings)
    paths = _expand(list_inputs(inputs, settings.dask.remote))
    _refuse_output(output, model, paths)
    with open_farm(settings.dask) as client, replacing_folder(output) as new:
        access = open_access(client, settings.dask, paths)
        sources = _open(client, paths, settings, calibration, access)
        names = tuple(column.name for column in columns)
        files = _write(client, sources, calibration, names, (settings, new, access))
        AppliedManifest(
            fingerprint=fingerprint(
                version=VERSION,
                model=card.fingerprint,
                settings=settings.model_dump(mode="json", exclude={"dask"}),
            ),
            model=str(model),
            kind=card.kind,
            columns=columns,
            reasons={reason.name.lower(): int(reason) for reason in Reason},
            bits=tuple(feature.name for feature in card.inputs),
            inputs=tuple(files),
            versions=versions_of("uproot", "onnxruntime", "numba"),
            citation=card.citation,
        ).save(new / MANIFEST)
    rows = sum(file.rows for file in files)
    good = sum(file.reasons["calibrated"] for file in files)
    outside = sum(file.outside for file in files)
    told = "apply: %d clusters of %d files, %d calibrated (%d outside the training ranges): %s"
    log.info(told, rows, len(files), good, outside, output)
    if 2 * outside > good:
        log.warning(
            "apply: most clusters have a feature outside the range that the model was trained on; "
            "are the units those of the input (unit in a layout)?"
        )


def _parse(argv: Sequence[str]) -> tuple[Path, list[str], Path, AppliedSettings]:
    overrides = [word for word in argv if re.match(r"[A-Za-z_][\w.]*=", word)]
    sites = [word for word in argv if word.endswith((".yaml", ".yml")) and word not in overrides]
    words = [word for word in argv if word not in overrides and word not in sites]
    if len(words) < 3 or words[0].startswith("-"):
        msg = f"MODEL, INPUT and OUTPUT are needed; usage: {USAGE}"
        raise UserError(msg)
    model, *inputs, output = words
    settings = load_settings(AppliedSettings, sites, overrides)
    return Path(model).absolute(), inputs, Path(output).absolute(), settings


def _expand(inputs: Sequence[str]) -> list[str]:
    """Folders as the Parquet files in them."""
    paths: list[str] = []
    for path in inputs:
        if Path(path).is_dir():
            found = sorted(str(file) for file in Path(path).rglob("*.parquet"))
            if not found:
                msg = f"{path}: a folder without Parquet files; name ROOT files or a glob"
                raise UserError(msg)
            paths += found
        else:
            paths.append(path)
    return paths


def _refuse_output(output: Path, model: Path, paths: Sequence[str]) -> None:
    """Refuse to put the output where something else is: a forgotten OUTPUT is an input's name.

    Raises:
        UserError: It is a file, the model, a folder with an input or another job's output.
    """
    usage = "name a folder of its own for the output, after the inputs"
    if output.exists() and not output.is_dir():
        msg = f"{output}: a file, which would be lost; {usage}"
        raise UserError(msg)
    kept = [model.resolve(), *(Path(path).resolve() for path in paths if server_of(path) is None)]
    inside = [path for path in kept if path.is_relative_to(output.resolve())]
    if inside:
        msg = f"{output}: holds {inside[0]}, which would be lost; {usage}"
        raise UserError(msg)
    if (output / CLAIM).exists():
        try:
            earlier = AppliedManifest.load(output / MANIFEST, made_by="apply")
        except UserError:
            msg = f"{output}: holds the output of another job, which would be lost; {usage}"
            raise UserError(msg) from None
        given = {_place_of(path) for path in paths}
        others = [item.input for item in earlier.inputs if _place_of(item.input) not in given]
        if others:
            msg = f"{output}: holds the answers for {others[0]}, which would be lost; {usage}"
            raise UserError(msg)


def _place_of(path: str) -> str:
    return str(Path(path).resolve()) if server_of(path) is None else path


def prepare(
    model: Path, card: ModelCard, settings: AppliedSettings
) -> tuple[Calibration, tuple[CalibratedColumn, ...]]:
    """A model ready for rows, and the columns of the output.

    Raises:
        UserError: The settings name a column that there is not.
    """
    calibrator = open_calibrator(model, card, settings)
    calibration = Calibration(
        calibrator=calibrator,
        features=card.inputs,
        cuts=card.cuts,
        floors=card.floors,
    )
    return calibration, _columns(calibrator, settings)


def _columns(calibrator: Calibrator, settings: AppliedSettings) -> tuple[CalibratedColumn, ...]:
    """The output's columns; the uncalibrated energy is always the first."""
    target = calibrator.target
    known = {column.name: column for column in describe_columns(target, calibrator.columns)}
    known["outside"] = CalibratedColumn(
        name="outside", unit="1", description="bit i: feature i lies outside its training range"
    )
    known["reason"] = CalibratedColumn(
        name="reason", unit="1", description="why a cluster is not calibrated; 0: it is"
    )
    usual = {"energy": target.calibrated, "response": target.name}
    wanted = [name if name in known else usual.get(name, name) for name in settings.columns]
    if "columns" not in settings.model_fields_set:
        wanted = [name for name in wanted if name in known]  # not every model has uncertainties
    unknown = [name for name in wanted if name not in known]
    if unknown:
        msg = f"columns: {', '.join(unknown)} unknown; there are {', '.join(known)}"
        raise UserError(msg)
    raw = CalibratedColumn(
        name=target.numerator, unit=target.calibrated_unit, description="as in the input"
    )
    return (raw, *(known[name] for name in wanted))


def _open(
    client: Client,
    paths: Sequence[str],
    settings: AppliedSettings,
    calibration: Calibration,
    access: Access,
) -> list[Input]:
    target = calibration.calibrator.target
    units = {feature.name: feature.unit for feature in calibration.features}
    units[target.numerator] = target.calibrated_unit
    look = functools.partial(
        open_input,
        layout=settings.layout,
        wanted=Wanted(
            dict.fromkeys(calibration.needed, MODEL_PURPOSE),
            _identity(settings),
            units,
            frozenset(feature.name for feature in calibration.features if feature.is_ragged),
        ),
        access=access,
    )
    sources: list[Input] = map_parts(client, look, paths, label="inspect", unit="files")
    if settings.layout is None:
        trees = sorted({s.layout.tree for s in sources if isinstance(s, RootInput)})
        if trees:
            log.info("apply: layout guessed from the tree: %s", ", ".join(trees))
    return sources


def _identity(settings: AppliedSettings) -> tuple[str, ...]:
    layouts = [settings.layout] if settings.layout is not None else []
    layouts = layouts or [read_layout(n) for n in ("cluster_tree", "event_tree", "xaod")]
    return tuple(dict.fromkeys(n for layout in layouts for n in layout.named("identity")))


def _write(
    client: Client,
    sources: Sequence[Input],
    calibration: Calibration,
    columns: tuple[str, ...],
    place: tuple[AppliedSettings, Path, Access],
) -> list[AppliedFile]:
    settings, folder, access = place
    jobs = [
        plan_input(source, name, folder, calibration, columns, access, wanted=settings.format)
        for source, name in zip(sources, _names(sources), strict=True)
    ]
    plans = [plan for job in jobs for plan in job.chunks]
    sizes = [plan.stop - plan.start for plan in plans]
    counts = map_parts(client, apply_chunk, plans, label="apply", sizes=sizes, unit="clusters")
    by_path = {plan.path: found for plan, found in zip(plans, counts, strict=True)}
    map_parts(client, finish_input, jobs, label="write", unit="files")
    shutil.rmtree(folder / PARTS, ignore_errors=True)
    return [describe_input(job, folder, by_path) for job in jobs]


def _names(sources: Sequence[Input]) -> list[str]:
    """A name for what becomes of each input: its own, with a number where two have the same."""
    stems = [PurePosixPath(source.path).stem for source in sources]
    return [
        stem if stems.count(stem) == 1 else f"{stem}-{number:05d}"
        for number, stem in enumerate(stems)
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
