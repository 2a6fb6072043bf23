"""Losses of networks with one output, and their gradients, written out.

Shape letters: B batch rows, O outputs (one).
"""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from training.settings import DnnSettings

LN10 = math.log(10.0)


class PointLoss(Protocol):
    """The loss of a network with one output, with its gradient written out."""

    def start_epoch(self, epoch: int) -> None:
        """Take what the loss has of its own in an epoch, counted from 0."""
        ...

    def of_rows(self, output_B: Tensor, target_B: Tensor) -> Tensor:
        """The loss [B] of each row, without its weight."""
        ...

    def predict(self, output_B: Tensor) -> Tensor:
        """What a network's output [B] predicts: the target, or the probability of the label."""
        ...

    def __call__(
        self, outputs_BO: Tensor, target_B: Tensor, weight_B: Tensor, grad_BO: Tensor
    ) -> Tensor:
        """The sum of weight times loss; grad becomes its derivatives by the outputs."""
        ...


class RegressionLoss(PointLoss, Protocol):
    """Of a network that predicts a target."""

    def log10_of(self, output_B: Tensor) -> Tensor:
        """log10 of the predicted target [B], from a network's output [B]."""
        ...


class LeakyKernel:
    """The leaky Gaussian kernel of a residual; see DnnSettings.

    Targets are log10 of the true value.
    """

    def __init__(self, settings: DnnSettings, like: Tensor) -> None:
        self.settings, self.width = settings, settings.width
        # a tensor, which a captured graph reads anew
        self.leakiness = like.new_full((), settings.leakiness_at(0))

    def start_epoch(self, epoch: int) -> None:
        """The leakiness of the epoch's stage."""
        self.leakiness.fill_(self.settings.leakiness_at(epoch))

    def of_rows(self, output_B: Tensor, target_B: Tensor) -> Tensor:
        """The loss [B] of each row, without its weight."""
        residual_B, _ = self._residual(output_B, target_B)
        return self.leakiness * residual_B.abs() - self._kernel(residual_B)

    def __call__(
        self, outputs_BO: Tensor, target_B: Tensor, weight_B: Tensor, grad_BO: Tensor
    ) -> Tensor:
        """The sum of weight times loss; grad becomes its derivatives by the outputs."""
        residual_B, slope_B = self._residual(outputs_BO[:, 0], target_B)
        kernel_B = self._kernel(residual_B)
        force_B = kernel_B * residual_B / self.width**2 + self.leakiness * residual_B.sign()
        torch.mul(weight_B * force_B, slope_B, out=grad_BO[:, 0])
        return (weight_B * (self.leakiness * residual_B.abs() - kernel_B)).sum()

    def predict(self, output_B: Tensor) -> Tensor:
        """The predicted target, in its unit."""
        if self.settings.output == "log10":
            return torch.exp(output_B * LN10)
        return bounded(output_B)

    def log10_of(self, output_B: Tensor) -> Tensor:
        """log10 of the predicted target, from a network's output."""
        return output_B if self.settings.output == "log10" else torch.log10(bounded(output_B))

    def _kernel(self, residual_B: Tensor) -> Tensor:
        height = 1.0 / (self.width * math.sqrt(2.0 * math.pi))
        return height * torch.exp(residual_B.square() / (-2.0 * self.width**2))

    def _residual(self, output_B: Tensor, target_B: Tensor) -> tuple[Tensor, Tensor]:
        """The residual, and its derivative by the output."""
        is_log10 = self.settings.output == "log10"
        # of ln predicted by the output
        slope_B = (
            torch.full_like(output_B, LN10) if is_log10 else 2.0 * torch.sigmoid(-2.0 * output_B)
        )
        if self.settings.residual == "log_ratio":
            log_B = (self.log10_of(output_B) - target_B) * LN10
            return log_B, slope_B
        predicted_B = self.predict(output_B)
        ratio_B = predicted_B * torch.exp(target_B * -LN10)
        return ratio_B - 1.0, ratio_B * slope_B


def bounded(output_B: Tensor) -> Tensor:
    """2 (tanh x + 1); above zero also where that rounds to zero."""
    # the same function, without the difference of nearly equal numbers
    return 4.0 * torch.sigmoid(2.0 * output_B)


class CrossEntropy:
    """The binary cross-entropy of an output that is a logit; targets are 0 or 1."""

    def start_epoch(self, epoch: int) -> None:
        """The loss is the same in all epochs."""

    def of_rows(self, output_B: Tensor, target_B: Tensor) -> Tensor:
        """The loss of each row, in nats."""
        return nn.functional.softplus(output_B) - target_B * output_B

    def predict(self, output_B: Tensor) -> Tensor:
        """The probability [B] of the label, from its logit."""
        return torch.sigmoid(output_B)

    def __call__(
        self, outputs_BO: Tensor, target_B: Tensor, weight_B: Tensor, grad_BO: Tensor
    ) -> Tensor:
        """The sum of weight times loss; grad becomes its derivatives by the outputs."""
        output_B = outputs_BO[:, 0]
        torch.mul(weight_B, torch.sigmoid(output_B) - target_B, out=grad_BO[:, 0])
        return (weight_B * self.of_rows(output_B, target_B)).sum()
