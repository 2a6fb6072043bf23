"""What the training loop knows of that which it trains.

Shape letters: P parameters, C figures of a step.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from training.data.rows import RowSource
from training.steps.noise import StepRows
from training.steps.sampled import Batch
from training.steps.sums import StepSums


class Learner(Protocol):
    """Networks with their loss, as far as one worker has them.

    Attributes:
        sizes: Units per layer.
        networks: Parameters theta_P of each network of this worker, with a gradient to update by;
            None where they are not trained.
        numbers: Of these networks among all.
        num_networks: How many there are on all workers.
        shares_rows: The workers have the same networks and share the rows of each batch; else
            each has networks of its own, and all rows.
        plan: The rows of an epoch's batches that this worker takes.
        score: What the loss of a row is called in the history: "nll" of a density, else "loss".
        figures: Names of what is told of a step beside its loss and the norm of its gradient.
    """

    sizes: tuple[int, ...]
    networks: list[Tensor]
    numbers: range
    num_networks: int
    shares_rows: bool
    plan: list[StepRows]
    score: str
    figures: tuple[str, ...]

    @property
    def sums(self) -> StepSums:
        """What a step adds up over the workers."""
        ...

    def renewed_at(self, epoch: int) -> Sequence[Tensor]:
        """The networks for which Adam starts anew at an epoch, counted from 0."""
        ...

    def start_epoch(self, epoch: int) -> None:
        """Take what the loss has of its own in an epoch, counted from 0."""
        ...

    def fill(self, batch: Batch) -> None:
        """Fill the sums with this worker's share of a batch."""
        ...

    def reduce_gradients(self, batch_rows: int, figures_C: Tensor) -> None:
        """From the sums over all workers make the gradient of the loss, and the step's figures.

        Args:
            batch_rows: Of the batch, over all workers.
            figures_C: Becomes the batch's summed loss, the norm of the gradient, then `figures`.
        """
        ...

    def describe(self) -> dict[str, float]:
        """What the history tells of the parameters."""
        ...

    def validate(self, rows: RowSource) -> Tensor:
        """The sum over rows of weight times loss, over all workers.

        Of networks that make a density: the NLL of the averaged one.
        """
        ...
