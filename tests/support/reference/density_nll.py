"""The loss of a density, of which training has the gradient written out."""

from torch import Tensor

from training.losses.density_nll import log_density


def summed_nll(
    outputs: Tensor, target: Tensor, weight: Tensor | None, bounds: tuple[float, float]
) -> Tensor:
    """The sum of weight times NLL over all rows, in nats."""
    log_p = log_density(outputs, target, bounds)
    return -(log_p.sum() if weight is None else (weight * log_p).sum())
