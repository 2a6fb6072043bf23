"""The tables of kinds: all that they name exists and fits, and everything follows from them."""

import dataclasses
import inspect

import pytest

from jobs.kinds import KINDS
from jobs.study import Study
from pipeline.calibrators.registry import CALIBRATORS
from pipeline.formats.families import FAMILIES
from training.kinds import NETWORK_KINDS, kind_of


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_can_be_trained_and_is_named_as_its_settings_say(name):
    kind = KINDS[name]
    assert kind.settings().kind == name
    parameters = list(inspect.signature(kind.open_train()).parameters)
    assert parameters == ["task", "settings"]


def settings_of(kind):
    """The usual ones, and where there is a choice those of a family without a step of its own."""
    yield kind.settings()
    if kind.autograd is not None:
        yield kind.settings(family="split_normal")


@pytest.mark.parametrize("name", NETWORK_KINDS)
def test_a_network_has_a_learner_and_an_export(name):
    kind = NETWORK_KINDS[name]
    assert kind_of(kind.settings()) is kind
    for settings in settings_of(kind):
        learner = list(inspect.signature(kind.open_learner(settings)).parameters)
        assert learner == ["data", "settings", "seed", "worker"]
        assert settings.epochs > 0
        assert settings.only_log_ratio == (kind.weight_sets is None)
    assert list(inspect.signature(kind.open_export()).parameters) == ["finished", "settings"]
    assert kind.settings().num_networks == 1 or kind.weight_sets is not None


def test_networks_without_a_density_say_so():
    with pytest.raises(ValueError, match="dnn makes no density"):
        NETWORK_KINDS["dnn"].open_weight_sets()


def test_a_study_takes_all_kinds_but_those_of_other_sections():
    models = {name: {"kind": name} for name, kind in KINDS.items() if kind.section == "models"}
    study = Study.model_validate({"name": "all", "output": "out", "models": models})
    found = {name: type(settings) for name, settings in study.models.items()}
    assert found == {name: KINDS[name].settings for name in models}
    assert "tagger" not in models


def test_every_density_of_a_network_calibrates_or_is_a_label():
    """Points, quantiles, and all families under one name."""
    assert {density for _, density in CALIBRATORS} == {"family", "quantiles", "point"}
    assert {"gaussian_mixture", "split_normal"} <= set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_has_all_that_its_line_names(name):
    family = FAMILIES[name]
    assert family.name == name
    for role in ("densities", "log_density", "location", "summarise", "crps"):
        assert callable(family.load(role))
    assert family.num_outputs(1) == len(family.parameters)


def test_what_is_missing_is_named_with_its_extra():
    kind = dataclasses.replace(KINDS["boosted_trees"], train="not_there.at_all:grow")
    with pytest.raises(ValueError, match=r"not_there is not installed.*topocal\[trees\]"):
        kind.open_train()
