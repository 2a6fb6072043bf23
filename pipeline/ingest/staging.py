"""The folder in which a dataset grows: it outlives a run that fails, so that nothing is lost."""

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.formats.errors import UserError
from pipeline.formats.files import flush_files, write_text
from pipeline.formats.folders import (
    CLAIM,
    claim,
    put_in_place,
    refuse_foreign,
    temporary_folder,
)
from pipeline.formats.lock import Held
from pipeline.formats.manifest import MANIFEST, DatasetManifest

STATE = "staging.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Staging:
    """A dataset that is being made.

    Attributes:
        folder: Where its parts are written.
        earlier: Folders of earlier runs with the same settings, whose blocks can be used.
    """

    folder: Path
    earlier: tuple[Path, ...]
    _final: Path
    _held: Held

    def commit(self, manifest: DatasetManifest, others: list[str]) -> None:
        """Write the manifest and give the dataset its name.

        Args:
            manifest: Of the dataset; its parts are in the folder.
            others: Files to keep beside the parts; what else is in the folder is removed.
        """
        kept = {*manifest.files, *others, CLAIM}
        for path in self.folder.rglob("*"):
            if path.is_file() and str(path.relative_to(self.folder)) not in kept:
                path.unlink()
        flush_files(self.folder / path for path in manifest.files)
        manifest.save(self.folder / MANIFEST)
        self._held.check()
        put_in_place(self.folder, self._final)
        shutil.rmtree(_aside(self._final), ignore_errors=True)


def open_staging(folder: Path, held: Held, *, settings: str, plan: str, fresh: bool) -> Staging:
    """Where a dataset is made, going on from where an earlier run was stopped.

    Until it is committed the dataset stays as it was; what is finished is kept for the next run.

    Args:
        folder: Of the dataset.
        held: Its lock.
        settings: Fingerprint of the settings; rows made with others are of no use.
        plan: Fingerprint of settings and inputs; parts of another plan have other numbers.
        fresh: Use nothing of earlier runs.

    Raises:
        UserError: The folder holds files that this program did not write.
    """
    refuse_foreign(folder)
    temporary, aside = temporary_folder(folder), _aside(folder)
    if fresh or _state(temporary).get("settings") != settings:
        shutil.rmtree(temporary, ignore_errors=True)
    if fresh or _state(aside).get("settings") != settings:
        shutil.rmtree(aside, ignore_errors=True)
    if temporary.exists() and _state(temporary)["plan"] != plan:
        shutil.rmtree(aside, ignore_errors=True)
        temporary.rename(aside)
    claim(temporary)
    write_text(temporary / STATE, json.dumps({"settings": settings, "plan": plan}))
    earlier = [path for path in (temporary, aside) if path.exists()]
    if not fresh and _settings_of(folder) == settings:
        earlier.append(folder)
    return Staging(temporary, tuple(earlier), folder, held)


def _aside(folder: Path) -> Path:
    return temporary_folder(folder.with_name(f"earlier-{folder.name}"))


def _state(folder: Path) -> dict[str, str]:
    try:
        content = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _settings_of(folder: Path) -> str | None:
    try:
        return DatasetManifest.load(folder / MANIFEST, made_by="ingest").settings_fingerprint
    except UserError:
        return None
