"""One model that is to be trained, whatever its kind."""

from dataclasses import dataclass
from pathlib import Path

from jobs.study import Study
from pipeline.formats.manifest import DatasetManifest
from pipeline.formats.records import ModelSettings


@dataclass(frozen=True, slots=True)
class Task:
    """One model that is to be trained.

    Attributes:
        study: With the seed, and where Dask and Ray run.
        name: Of the model.
        settings: Of the model.
        dataset: Folder of the dataset.
        manifest: Of the dataset.
        folder: Of the model; it is there, and this run alone holds it.
        fingerprint: Of settings and data, for the card.
        labels: Folder of the labels that a tagger is to predict; None for the dataset's target.
    """

    study: Study
    name: str
    settings: ModelSettings
    dataset: Path
    manifest: DatasetManifest
    folder: Path
    fingerprint: str
    labels: Path | None = None
