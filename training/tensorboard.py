"""The history of a training for TensorBoard, which is optional."""

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.formats.errors import UserError

FOLDER = "tensorboard"


def require_tensorboard() -> None:
    """Check that the package is there.

    Raises:
        UserError: It is not.
    """
    try:
        importlib.import_module("tensorboard")
    except ModuleNotFoundError:
        msg = "ray.tensorboard: tensorboard is not installed: pip install tensorboard, or set false"
        raise UserError(msg) from None


@contextmanager
def open_board(folder: Path, completed: int) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """A function that adds the record of an epoch to <folder>/tensorboard.

    Args:
        folder: Of the model.
        completed: Epochs that are there already; later ones, of a run that was stopped within an
            epoch, are hidden.

    Raises:
        UserError: TensorBoard is not installed.
    """
    require_tensorboard()
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - optional

    with SummaryWriter(str(folder / FOLDER), purge_step=completed + 1) as writer:

        def add(record: Mapping[str, float]) -> None:
            for name in record.keys() - {"epoch"}:
                writer.add_scalar(name, record[name], int(record["epoch"]))
            writer.flush()

        yield add
