"""Training of boosted trees: a search by dask-ml on the farm, then one fit for each quantile."""

import functools
import logging
from typing import Any

import numpy as np
from dask_ml.model_selection import RandomizedSearchCV
from distributed import Client
from sklearn.model_selection import KFold

from jobs.farm.dask import open_farm
from jobs.task import Task
from pipeline.fold import map_parts
from pipeline.formats.card import ModelCard
from pipeline.formats.seeds import derive_seed
from pipeline.progress import Shown
from pipeline.trees.export import write_card, write_onnx
from pipeline.trees.fit import LevelPlan, QuantileTrees, fit_level, score_part
from pipeline.trees.rows import RowsPlan, plan_rows, share_of_rows
from pipeline.trees.settings import BoostedTreesSettings

log = logging.getLogger(__name__)


def grow_trees(task: Task, settings: BoostedTreesSettings) -> ModelCard:
    """Search the settings, grow the trees of all quantiles and write the model, the card last.

    Raises:
        UserError: The dataset lacks a feature or truth, or a weight is negative.
    """
    plan = plan_rows(task.dataset, task.manifest, settings.features, task.study.seed)
    with open_farm(task.study.dask) as client:
        chosen, search_scores = _search(client, task, settings, plan)
        jobs = [
            LevelPlan(
                plan=plan,
                parts=task.manifest.parts_of("train"),
                share=share_of_rows(settings.rows, task.manifest),
                level=level,
                settings=chosen,
                seed=derive_seed(task.study.seed, "boosted trees"),
            )
            for level in settings.levels
        ]
        grown = map_parts(client, fit_level, jobs, label=f"grow {task.name}", unit="quantiles")
        model = write_onnx(
            [trees for trees, _ in grown],
            task.manifest,
            plan.features,
            folder=task.folder,
            seed=task.study.seed,
        )
        score = functools.partial(score_part, plan=plan, model=model, levels=settings.levels)
        parts = task.manifest.parts_of("validation")
        sums = map_parts(client, score, parts, label=f"validate {task.name}")
    return write_card(
        task.manifest,
        plan.features,
        settings,
        folder=task.folder,
        name=task.name,
        fingerprint=task.fingerprint,
        found=({**chosen, "rows": grown[0][1]}, {**search_scores, **_scores(sums, settings)}),
    )


def _search(
    client: Client, task: Task, settings: BoostedTreesSettings, plan: RowsPlan
) -> tuple[dict[str, Any], dict[str, float]]:
    """The best settings, by pinball loss over all quantiles, and what they scored."""
    if settings.num_combinations == 1:
        return {name: values[0] for name, values in settings.choices.items()}, {}
    search = settings.search
    share = share_of_rows(search.rows, task.manifest)
    rows = plan.gather(task.manifest.parts_of("train"), share)
    seed = derive_seed(task.study.seed, "boosted trees search") % 2**32
    candidates = min(search.candidates, settings.num_combinations)
    found = RandomizedSearchCV(
        QuantileTrees(settings.levels, seed=seed),
        {name: list(values) for name, values in settings.choices.items()},
        n_iter=candidates,
        random_state=seed,
        cv=KFold(search.folds, shuffle=True, random_state=seed),
        refit=False,
        scheduler=client,
    )
    with Shown(f"search {task.name}", candidates * search.folds, "fits", counts=False):
        found.fit(np.column_stack([rows.x_NF, rows.weight_N]), rows.target_N)
    scores = found.cv_results_["mean_test_score"]
    best = int(np.argmax(scores))
    chosen = dict(found.cv_results_["params"][best])
    log.info(
        "train: %s: of %d settings, %d folds of %d rows, the best has pinball loss %.5f: %s",
        task.name,
        candidates,
        search.folds,
        len(rows.target_N),
        -scores[best],
        ", ".join(f"{name} {value:g}" for name, value in chosen.items()),
    )
    return chosen, {"search_pinball": float(-scores[best])}


def _scores(sums: list[Any], settings: BoostedTreesSettings) -> dict[str, float]:
    """Mean pinball loss over the quantiles, and mean distance of the median, in log10."""
    total = np.sum(sums, axis=0) if sums else np.zeros(1)
    if not total[-1] > 0:
        return {}
    losses_Q = total[:-1] / total[-1]
    median = losses_Q[settings.levels.index(0.5)]
    return {
        "validation_pinball": float(losses_Q.mean()),
        "validation_mae_log10": float(2.0 * median),
    }
