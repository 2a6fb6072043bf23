"""The kinds of models: one line each, from which all that depends on the kind follows.

Networks have a table of their own, `training.kinds.NETWORK_KINDS`, which this one takes in.
Functions are named, not imported: a study is checked without torch and scikit-learn.
"""

import pkgutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from pipeline.formats.card import ModelCard
from pipeline.formats.errors import requiring_extra
from pipeline.formats.plugins import Table
from pipeline.formats.records import ModelSettings
from pipeline.lookup.settings import LookupTableSettings
from pipeline.trees.settings import BoostedTreesSettings
from training.kinds import NETWORK_KINDS


@dataclass(frozen=True, slots=True)
class ModelKind:
    """One kind of model, as `train` and `tag` know it.

    Attributes:
        settings: Its settings; their `kind` is its name.
        train: "module:function" that takes a `jobs.task.Task` and these settings, writes the files
            of the model into its folder, the card last, and returns the card.
        extra: Of topocal, which installs what the function imports.
        section: Where in a study its settings stand: among the models, or in the section `tag`.
    """

    settings: type[ModelSettings]
    train: str
    extra: str | None = None
    section: str = "models"

    def open_train(self) -> Callable[[Any, Any], ModelCard]:
        """The function that trains.

        Raises:
            UserError: It needs what is not installed.
        """
        with nullcontext() if self.extra is None else requiring_extra(self.extra, "training"):
            return pkgutil.resolve_name(self.train)  # type: ignore[no-any-return]


def _own() -> dict[str, ModelKind]:
    return {
        **{
            name: ModelKind(
                kind.settings, "jobs.train_networks:train_networks", "train", kind.section
            )
            for name, kind in NETWORK_KINDS.items()
        },
        "lookup_table": ModelKind(LookupTableSettings, "jobs.fit_lookup_table:fit_lookup_table"),
        "boosted_trees": ModelKind(BoostedTreesSettings, "jobs.grow_trees:grow_trees", "trees"),
    }


KINDS = Table(_own, "model_kinds", ModelKind)
