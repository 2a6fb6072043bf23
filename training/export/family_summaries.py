"""What is read off networks of any family of densities, from their log density on even points.

As `Summaries`, for families without a closed form of their own: R = 10^l is averaged over points of
l, and the mode is the highest of them, moved to the top of the parabola through its neighbours.

Shape letters: S networks, N rows, P outputs of a network, G points.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from pipeline.formats.errors import UserError, cause_of
from pipeline.formats.families import FAMILIES, OWN_FAMILIES
from training.export.mode import LN10
from training.export.moments import over_networks
from training.export.summaries import LIMITS
from training.export.torch_onnx import export_onnx

POINTS = 1024
PARTS = ("outputs",)


class FamilySummaries(nn.Module):
    """Outputs of all networks to the parameters of their densities and to what these say of R.

    Args:
        family: Of the densities.
        transform: Of the target R: l is "log10" of it, or R itself ("identity").

    Attributes:
        parts: Names of what the outputs [S, P, N] are split into.
        outputs: Names of what is returned.
    """

    parts = PARTS
    outputs = ("parameters", "mean", "sigma_syst", "sigma_stat", "central")

    def __init__(self, family: str, transform: str = "log10") -> None:
        super().__init__()
        self.family, self.is_log = FAMILIES[family], transform == "log10"
        self.log_density = self.family.load("log_density")

    def split(self, outputs_SPN: Tensor) -> tuple[Tensor, ...]:
        """The outputs as they are."""
        return (outputs_SPN,)

    def densities(self, parts: Sequence[Tensor], log_variance_bounds: Tensor) -> Tensor:
        """The parameters of the densities, [S, N, P]; logs of variances have no limits yet."""
        del log_variance_bounds
        return parts[0].mT

    def forward(
        self, outputs_SPN: Tensor, log_variance_bounds: Tensor, search_range: Tensor
    ) -> tuple[Tensor, ...]:
        """Parameters [S, N, P], then of R mean, sigma_syst, sigma_stat and central, each [N].

        Args:
            outputs_SPN: Of the networks.
            log_variance_bounds: [2], limits of the log variances.
            search_range: [2], bounds of l for moments and mode.
        """
        parameters_SNP = outputs_SPN.mT
        low, high = search_range[0], search_range[1]
        share_G = torch.arange(POINTS, dtype=outputs_SPN.dtype) / (POINTS - 1)
        step, l_G = (high - low) / (POINTS - 1), low + (high - low) * share_G
        bounds = (log_variance_bounds[0], log_variance_bounds[1])
        log_SNG = self.log_density(parameters_SNP.unsqueeze(2), l_G, bounds)
        weight_G = torch.where((share_G > 0.0) & (share_G < 1.0), 1.0, 0.5)
        highest_SN1 = log_SNG.amax(dim=2, keepdim=True)
        p_SNG = torch.exp(log_SNG - highest_SN1) * weight_G
        p_SNG = p_SNG / p_SNG.sum(dim=2, keepdim=True)
        value_G = torch.exp(l_G * LN10) if self.is_log else l_G
        mean_SN = (p_SNG * value_G).sum(dim=2)
        variance_SN = (p_SNG * (value_G - mean_SN.unsqueeze(2)) ** 2).sum(dim=2)
        mean_N, syst_N, stat_N = over_networks(mean_SN, variance_SN)
        tilted_NG = torch.logsumexp(log_SNG, dim=0) - (LN10 if self.is_log else 0.0) * l_G
        mode_N = _highest(tilted_NG, l_G, step)
        value_N = torch.exp(mode_N * LN10) if self.is_log else mode_N
        central_N = torch.where(torch.isnan(mean_N), mean_N, value_N)
        return parameters_SNP, mean_N, syst_N, stat_N, central_N

    def export(self, path: Path) -> None:
        """Write the graph with free numbers of networks and rows."""
        outputs = len(self.family.parameters)
        sizes = {0: torch.export.Dim("networks"), 2: torch.export.Dim("rows")}
        # Two tensors: of one the tracer would make one input.
        limits = (torch.tensor((-1.0, 1.0)), torch.tensor((-1.0, 1.0)))
        export_onnx(
            self,
            (torch.zeros(4, outputs, 5), *limits),
            path,
            inputs=(*PARTS, *LIMITS),
            outputs=self.outputs,
            dynamic_shapes=(sizes, None, None),
        )


def require_exportable(family: str) -> None:
    """Make sure that a family's log density can be written as ONNX, before hours of training.

    Raises:
        UserError: It cannot.
    """
    if family in OWN_FAMILIES:  # which tests export
        return
    with TemporaryDirectory() as folder:
        try:
            FamilySummaries(family).export(Path(folder) / "summaries.onnx")
        except Exception as error:
            msg = (
                f"family {family}: its log density cannot be exported as ONNX ({cause_of(error)}); "
                "write it with operations that ONNX has"
            )
            raise UserError(msg) from error


def _highest(value_NG: Tensor, l_G: Tensor, step: Tensor) -> Tensor:
    """Where the highest value lies, [N], to a fraction of a step."""
    place_N1 = value_NG.argmax(dim=1, keepdim=True).clamp(1, POINTS - 2)
    before, top, after = (value_NG.gather(1, place_N1 + shift) for shift in (-1, 0, 1))
    bend = before - 2.0 * top + after
    shift = 0.5 * (before - after) / torch.where(bend < 0.0, bend, torch.full_like(bend, -1.0))
    is_bent = bend < 0.0
    shift = torch.where(is_bent, shift.clamp(-1.0, 1.0), torch.zeros_like(shift))
    return (l_G[place_N1] + shift * step).squeeze(1)
