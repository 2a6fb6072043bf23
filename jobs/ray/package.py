"""What travels to a Ray cluster: this project's code and the study, with absolute paths."""

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs.signals import SignalArrived
from jobs.study import Study
from pipeline.formats.errors import StoppedBySignal, UserError
from pipeline.formats.files import TEMPORARY

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "training", "jobs", "configs")
EXCLUDED = ("__pycache__", "*.pyc", ".*")
MOST_MIB = 20.0  # the code has less than one; Ray refuses packages of some hundred

STUDY, PROBE = "study.json", "probe.json"


@contextmanager
def packed(study: Study) -> Iterator[Path]:
    """A folder with what a node needs to run a job of the study, and a file to be looked for there.

    The code is a copy of this project's own packages and of nothing else.

    Raises:
        UserError: The packages are larger than code can be.
    """
    probe = study.folder / f"{TEMPORARY}{uuid.uuid4().hex}-probe"
    with TemporaryDirectory(prefix="topocal-package-") as name:
        folder = Path(name)
        for package in PACKAGES:
            shutil.copytree(
                ROOT / package, folder / package, ignore=shutil.ignore_patterns(*EXCLUDED)
            )
        _refuse_large(folder)
        (folder / STUDY).write_text(json.dumps(_for_the_cluster(study)), encoding="utf-8")
        (folder / PROBE).write_text(json.dumps(str(probe)), encoding="utf-8")
        probe.touch()
        try:
            yield folder
        except (SignalArrived, StoppedBySignal):  # the job goes on and may not have looked yet
            raise
        except BaseException:
            probe.unlink(missing_ok=True)
            raise
        probe.unlink(missing_ok=True)


def _for_the_cluster(study: Study) -> dict[str, object]:
    """The study as the cluster's head node is to do it."""
    ray = study.ray.model_copy(update={"address": "auto", "token": None})
    return study.model_copy(update={"ray": ray}).model_dump(mode="json")


def _refuse_large(folder: Path) -> None:
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    total = sum(sizes.values()) / 2**20
    if total > MOST_MIB:
        largest = max(sizes, key=lambda path: sizes[path])
        msg = (
            f"the packages of topocal have {total:.0f} MiB, more than the {MOST_MIB:.0f} that are "
            "sent to a cluster; move data out of them, such as "
            f"{ROOT / largest.relative_to(folder)}"
        )
        raise UserError(msg)


def refuse_unshared(package: Path) -> None:
    """Make sure, on the cluster, that the client's output folder is seen here.

    Raises:
        UserError: It is not.
    """
    probe = Path(json.loads((package / PROBE).read_text(encoding="utf-8")))
    if not probe.exists():
        msg = (
            f"output: {probe.parent} of the submitting machine is not seen by the Ray cluster; "
            "inputs and output must lie on a file system that all nodes see under the same path"
        )
        raise UserError(msg)
    probe.unlink(missing_ok=True)
