"""The model card: everything that using a trained model needs, beside the model itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pipeline.formats.columns import Cut, Feature, Target
from pipeline.formats.errors import UserError
from pipeline.formats.families import FAMILIES
from pipeline.formats.files import sha256_of
from pipeline.formats.manifest import DatasetManifest
from pipeline.formats.records import OutputRecord, Record
from pipeline.formats.versions import git_hash

CARD = "model.json"
NETWORKS = "networks.onnx"  # of models with a mixture

# Modes are searched and moments integrated within the training range of log10 of the target and
# this much on either side: far from the data one wide component of weight 1e-3 would decide both.
SEARCH_MARGIN = 0.3


class Artefact(Record):
    """A file of the model: relative path, size in bytes, checksum."""

    path: str
    size: int
    sha256: str


class TrainingRange(Record):
    """Smallest and largest raw value of a feature among the training rows."""

    minimum: float
    maximum: float


class Output(Record):
    """One output of the model: name, unit, shape in words, meaning."""

    name: str
    unit: str
    shape: str
    description: str


class ModelCard(OutputRecord):
    """A trained model's card.

    Attributes:
        name: The model's name in its study.
        kind: What was trained, for example "bnn".
        artefact: "onnx"; "tables" for calibrations that are no network.
        artefacts: By role: "model" is the ONNX file with all outputs or the tables, "networks" the
            networks alone, before limits and normalisation, for bulk work; then "weights" and
            "history".
        density: What the outputs describe: a family of densities of log10 of the target (see
            `families`; of "gaussian_mixture" the output `mixture`), "quantiles" of log10 of the
            target (`quantiles` [row, quantile]), or a "point", one estimate of the target a row
            (`response` [row]); "categorical": the probability of a label a row (`score` [row]),
            which calibrates nothing.
        quantile_levels: Probability of each quantile, rising; for "quantiles".
        num_networks: Size of the network axis S (weight samples or members); for mixtures.
        num_components: Components K of each network's mixture; for mixtures.
        log_variance_bounds: What the logs of variances that `networks` gives are to be limited to;
            for mixtures.
        inputs: Raw physical features in the order of the model's input columns.
        input_ranges: By feature: the training range.
        cuts: On features: what the training clusters passed.
        floors: By feature: values below were raised to the floor.
        targets: What is predicted; none for a label. A model of several targets has, for each, a
            folder of the target's name with a card and files of its own, which calibrate; its own
            card lists these files, its weights and its history.
        target_ranges: By target: smallest and largest transformed value among the training rows.
        outputs: Outputs of the model.
        settings: The model's resolved settings.
        scores: Validation scores, by name.
        checks: Of the exported file, by name: share of the rows tried whose central value it cannot
            prove to be the most probable one.
        fingerprint: Of the settings and data that the model follows from.
        data_fingerprint: The dataset's.
        git_hash: Commit of the code; "unknown" outside a checkout.
        versions: Software that trained and exported the model.
        citation: How to cite.
    """

    format_version: Literal[1] = 1
    name: str
    kind: str
    artefact: Literal["onnx", "tables"] = "onnx"
    artefacts: dict[str, Artefact]
    density: str = "gaussian_mixture"
    quantile_levels: tuple[float, ...] = ()
    num_networks: int | None = None
    num_components: int | None = None
    log_variance_bounds: tuple[float, float] | None = None
    inputs: tuple[Feature, ...]
    input_ranges: dict[str, TrainingRange]
    cuts: tuple[Cut, ...] = ()
    floors: dict[str, float] = Field(default={})
    targets: tuple[Target, ...]
    target_ranges: dict[str, tuple[float, float]]
    outputs: tuple[Output, ...]
    settings: dict[str, Any]
    scores: dict[str, float]
    checks: dict[str, float] = Field(default={})
    data_fingerprint: str
    git_hash: str
    versions: dict[str, str]
    citation: str = "ATLAS Collaboration, arXiv 2412.04370"

    def require_target(self) -> Target:
        """What the model predicts.

        Raises:
            UserError: It predicts a label, which calibrates nothing, or several targets.
        """
        if not self.targets:
            msg = f"{self.name}: a {self.kind} calibrates nothing; name a regression instead"
            raise UserError(msg)
        if len(self.targets) > 1:
            names = ", ".join(target.name for target in self.targets)
            msg = f"{self.name}: predicts {names}; name the folder of one of them in the model's"
            raise UserError(msg)
        return self.targets[0]

    @property
    def files(self) -> Mapping[str, int]:
        """Size in bytes of each file, by its path."""
        return {item.path: item.size for item in self.artefacts.values()}

    def missing_from(self, folder: Path) -> list[str]:
        """Files that are not there or have another size, or that earlier versions did not make."""
        missing = super().missing_from(folder)
        is_whole = len(self.targets) > 1  # each target has networks of its own
        if self.density in FAMILIES and not is_whole and "networks" not in self.artefacts:
            missing.append(NETWORKS)
        return missing


def require_artefact(path: Path, sha256: str) -> None:
    """A check that a file of a model is there and unchanged.

    Raises:
        UserError: It is missing or another one.
    """
    if not path.is_file() or sha256_of(path) != sha256:
        msg = f"{path}: missing or not the file that the model card lists; train or copy it again"
        raise UserError(msg)


def artefact_of(folder: Path, path: str) -> Artefact:
    """A file of a model, by its path relative to the model's folder."""
    return Artefact(path=path, size=(folder / path).stat().st_size, sha256=sha256_of(folder / path))


def trained_on(
    manifest: DatasetManifest, features: Sequence[Feature], targets: Sequence[Target]
) -> dict[str, Any]:
    """What every card tells of the data and the code: the fields of ModelCard by name.

    Raises:
        UserError: The dataset has no usable range of a target.
    """
    ranges = {feature.name: manifest.statistics[feature.name] for feature in features}
    return {
        "inputs": tuple(features),
        "input_ranges": {
            name: TrainingRange(minimum=column.minimum, maximum=column.maximum)
            for name, column in ranges.items()
        },
        "cuts": tuple(cut for cut in manifest.cuts if cut.column in ranges),
        "floors": {f.column: f.floor for f in manifest.floors if f.column in ranges},
        "targets": tuple(targets),
        "target_ranges": {
            target.name: manifest.for_target(target).target_range() for target in targets
        },
        "data_fingerprint": manifest.fingerprint,
        "git_hash": git_hash(),
    }


def read_card(folder: Path) -> ModelCard:
    """The card of the model in a folder."""
    return ModelCard.load(folder / CARD, made_by="train")
