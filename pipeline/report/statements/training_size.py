"""Statements on Figure 10: uncertainties against the size of the training sample."""

from typing import Any

from pipeline.report.statements.statement import Finding, Statement
from pipeline.report.study_data import Scene

FLAT = 0.05  # change of sigma_syst that counts as none (physics, acceptance)
MUCH_LARGER = 2.0
DECADE = 0.9  # the last one, nearly


def _steps(scene: Scene, name: str) -> list[dict[str, Any]]:
    """The rows of the model's ladder, the one of fixed updates where there are several."""
    rows = [row for row in scene.table("scaling").to_pylist() if row["model"] == name]
    ladders = dict.fromkeys(
        row["ladder"] for row in sorted(rows, key=lambda row: row["budget"], reverse=True)
    )
    steps = [row for row in rows if row["ladder"] == next(iter(ladders), None)]
    return steps if len(steps) > 1 else []


def stat_falls(scene: Scene, name: str) -> Finding | None:
    """sigma_stat at the largest size over that at the smallest."""
    steps = _steps(scene, name)
    if not steps:
        return None
    ratio = steps[-1]["sigma_stat_log10_median"] / steps[0]["sigma_stat_log10_median"]
    rise = steps[-1]["rows"] / steps[0]["rows"]
    return Finding(f"{ratio:.2f} of it at {rise:.3g} times the rows", holds=ratio < 1.0)


def syst_settles(scene: Scene, name: str) -> Finding | None:
    """Change of sigma_syst over about the last decade of training rows."""
    steps = _steps(scene, name)
    before = [row for row in steps if row["rows"] <= steps[-1]["rows"] / 10**DECADE]
    if not before:
        return None
    change = steps[-1]["sigma_syst_log10_median"] / before[-1]["sigma_syst_log10_median"] - 1.0
    return Finding(f"{100 * change:+.1f}% in the last decade", holds=abs(change) < FLAT)


def syst_dominates(scene: Scene, name: str) -> Finding | None:
    """sigma_syst over sigma_stat at the largest size."""
    steps = _steps(scene, name)
    if not steps:
        return None
    ratio = steps[-1]["sigma_syst_log10_median"] / steps[-1]["sigma_stat_log10_median"]
    return Finding(f"{ratio:.1f} times", holds=ratio > MUCH_LARGER)


STATEMENTS = (
    Statement("10", "sigma_stat with more training rows", "falls", stat_falls),
    Statement("10", "sigma_syst with more training rows", "a plateau", syst_settles),
    Statement("10", "sigma_syst over sigma_stat at full size", "much larger", syst_dominates),
    Statement(
        "10", "sigma_stat with more training rows", "falls", stat_falls, of="repulsive_ensemble"
    ),
)
