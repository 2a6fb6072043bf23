"""Columns of the tables that an evaluation writes and a report reads."""

import pyarrow as pa


def _schema(text: str = "", whole: str = "", real: str = "") -> pa.Schema:
    """Columns by type, in this order: text, whole numbers, real numbers; all may be missing."""
    kinds = ((text, pa.string()), (whole, pa.int64()), (real, pa.float64()))
    return pa.schema([(name, kind) for names, kind in kinds for name in names.split()])


_HISTOGRAM = _schema("figure set population", "rows", "low high fraction fraction_error")
_PROFILE = (
    "low high effective_rows median median_error left68 right68 width68 width68_error sigma_rel "
    "sigma_rel_error mean mean_error mean_truncated mean_truncated_error"
)

# Roles of the calibrated sets in the table `sets`: one at most is the reference.
MODEL = "model"
REFERENCE = "reference"

SCHEMAS: dict[str, pa.Schema] = {
    "sets": _schema("set role"),
    "axes": _schema("axis column unit scale", real="closure_from"),
    "delta_e": _schema("axis set", "rows", _PROFILE),
    "delta_r": _schema("axis set", "rows", _PROFILE),
    "pull_profile": _schema(
        "axis set",
        "rows",
        "low high effective_rows median median_error left68 right68 width68 width68_error",
    ),
    "scores": _schema(
        "set population",
        "rows rows_without_density",
        "nll nll_error nll_excess nll_excess_error pit_ks coverage68 coverage68_error coverage95 "
        "coverage95_error in_domain in_domain_error sigma_log10_ratio_median sigma_tot_median "
        "sigma_syst_median sigma_stat_median sigma_rel",
    ),
    "pull": _HISTOGRAM,
    "pull_fit": _schema(
        "figure set population",
        real="mean left right mean_error left_error right_error height low high",
    ),
    "pit": _HISTOGRAM,
    "sigma": _HISTOGRAM,
    "sigma_ratio": _HISTOGRAM,
    "pair_sigma": _HISTOGRAM,
    "plane": _schema("axis set", "rows", "low high target_low target_high weight"),
}
