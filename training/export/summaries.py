"""What is read off the networks' outputs, as one module and as the ONNX graph made from it.

The graph depends on no weight, and its numbers of networks, components and rows are free: it is
exported once for each transform of targets and kept beside this file, since torch takes half a
minute for its thousand operations. What changes this module, or what it calls, writes both anew:

    python -m training.export.summaries

Shape letters: S networks, N rows, K components.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from training.export.mode import LN10, mode_within
from training.export.moments import sigmas_within
from training.export.torch_onnx import export_onnx

FILES = {
    "log10": Path(__file__).with_name("summaries.onnx"),
    "identity": Path(__file__).with_name("summaries_identity.onnx"),
}
PARTS = ("means", "log_variances", "logits")
LIMITS = ("log_variance_bounds", "search_range")


class Summaries(nn.Module):
    """Outputs of all networks to their mixtures in l and to what these say of the target.

    Args:
        transform: Of the target R: l is "log10" of it, or R itself ("identity").

    Attributes:
        parts: Names of what the outputs [S, P, N] are split into.
        outputs: Names of what is returned.
    """

    parts = PARTS
    outputs = ("mixture", "mean", "sigma_syst", "sigma_stat", "central", "central_gap")

    def __init__(self, transform: str = "log10") -> None:
        super().__init__()
        self.transform = transform

    def split(self, outputs_SPN: Tensor) -> tuple[Tensor, ...]:
        """Means, log variances and logits, each [S, K, N]."""
        return outputs_SPN.chunk(3, dim=1)

    def densities(self, parts: Sequence[Tensor], log_variance_bounds: Tensor) -> Tensor:
        """The mixtures alone, [S, N, 3K], of what `split` gives."""
        mean_SKN, log_variance_SKN, logit_SKN = parts
        mixture = mixture_of(mean_SKN, log_variance_SKN, logit_SKN, log_variance_bounds)
        return torch.cat(mixture, dim=-1)

    def export(self, path: Path) -> None:
        """Write the graph, which has been made before."""
        shutil.copyfile(FILES[self.transform], path)

    def forward(
        self,
        mean_SKN: Tensor,
        log_variance_SKN: Tensor,
        logit_SKN: Tensor,
        log_variance_bounds: Tensor,
        search_range: Tensor,
    ) -> tuple[Tensor, ...]:
        """Mixture [S, N, 3K], then each [N]: of R mean, sigma_syst, sigma_stat, central; its gap.

        All of a row are NaN where an output of a network is.

        Args:
            mean_SKN: Centres of the components in l.
            log_variance_SKN: Natural log of their variances, before the limits.
            logit_SKN: Logits of their weights.
            log_variance_bounds: [2], limits of the log variances.
            search_range: [2], bounds of l for moments and mode.
        """
        parts = mixture_of(mean_SKN, log_variance_SKN, logit_SKN, log_variance_bounds)
        is_log = self.transform == "log10"
        mean_N, syst_N, stat_N = sigmas_within(*parts, search_range, is_log=is_log)
        mean, log_variance, log_weight = (_all_components(part) for part in parts)
        tilt = LN10 if is_log else 0.0
        mode = mode_within(mean, log_variance, log_weight, search_range, tilt)
        # a search ends somewhere, also where there is no density
        is_nan_N = torch.isnan(mean_N)
        value_N = torch.exp(mode.l_N * LN10) if is_log else mode.l_N
        central_N = torch.where(is_nan_N, mean_N, value_N)
        gap_N = torch.where(is_nan_N, mean_N, mode.gap_N)
        return torch.cat(parts, dim=-1), mean_N, syst_N, stat_N, central_N, gap_N


def mixture_of(
    mean_SKN: Tensor, log_variance_SKN: Tensor, logit_SKN: Tensor, log_variance_bounds: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Means, log variances within their limits and log weights that sum to one, each [S, N, K]."""
    logit_SKN = logit_SKN - logit_SKN.amax(dim=1, keepdim=True)
    log_weight_SKN = logit_SKN - logit_SKN.exp().sum(dim=1, keepdim=True).log()
    clamped_SKN = torch.clamp(log_variance_SKN, log_variance_bounds[0], log_variance_bounds[1])
    return mean_SKN.mT, clamped_SKN.mT, log_weight_SKN.mT


def write_summaries(transform: str, path: Path) -> None:
    """Export the module with free numbers of networks, components and rows."""
    networks, components, rows = (torch.export.Dim(name) for name in ("networks", "parts", "rows"))
    outputs = {0: networks, 1: components, 2: rows}
    # Sizes of which none is 1, and no two are equal: the exporter takes such for constants.
    example = (*torch.zeros(3, 4, 3, 5), torch.tensor((-1.0, 1.0)), torch.tensor((-1.0, 1.0)))
    export_onnx(
        Summaries(transform).eval(),
        example,
        path,
        inputs=(*PARTS, *LIMITS),
        outputs=Summaries.outputs,
        dynamic_shapes=(outputs, outputs, outputs, None, None),
    )


def _all_components(part_SNK: Tensor) -> Tensor:
    """The components of all networks side by side, [N, S K]."""
    return part_SNK.permute(1, 0, 2).flatten(1)


if __name__ == "__main__":
    for transform, file in FILES.items():
        write_summaries(transform, file)
