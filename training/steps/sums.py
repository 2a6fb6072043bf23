"""What a step adds up over the workers: named views of one buffer, which is reduced at once.

Shape letters: P parameters, M members, F figures of a member.
"""

from dataclasses import dataclass
from typing import Self

from torch import Tensor


@dataclass(frozen=True, slots=True)
class StepSums:
    """Of any learner.

    Attributes:
        buffer: All of it; what the views below show changes when it is reduced.
        stop: How many workers have been told to stop, a scalar.
    """

    buffer: Tensor
    stop: Tensor


@dataclass(frozen=True, slots=True)
class GradientSums(StepSums):
    """Where the workers share the rows of a batch.

    Attributes:
        gradient_P: Of the loss summed over rows.
        loss: Summed over rows, a scalar.
    """

    gradient_P: Tensor
    loss: Tensor

    @classmethod
    def of(cls, buffer: Tensor) -> Self:
        """Views of a buffer [P + 2]."""
        return cls(buffer, stop=buffer[-1], gradient_P=buffer[:-2], loss=buffer[-2])


@dataclass(frozen=True, slots=True)
class MemberSums(StepSums):
    """Where each worker has members of its own, whose gradients need no sum.

    Attributes:
        figures_MF: Of all members; a worker fills the rows of its own, the others are zero.
    """

    figures_MF: Tensor

    @classmethod
    def of(cls, buffer: Tensor, num_figures: int) -> Self:
        """Views of a buffer [M x F + 1]."""
        return cls(buffer, stop=buffer[-1], figures_MF=buffer[:-1].view(-1, num_figures))
