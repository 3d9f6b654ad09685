"""What names a run: every setting but those listed here, so that no two runs of different results share a folder."""

import dataclasses
from typing import Any

import pytest

from ssl_dgm import config as schema
from ssl_dgm.compose import compose
from ssl_dgm.config import Config, EstimatorConfig, LoggerConfig, ObjectiveConfig, OptimizerConfig, TrainerConfig

# Where and how it is carried out, which of its seeds, and by which files its rows are told: those have a checksum.
HOW = {
    "seeds", "baseline", "device", "seeds_at_once", "time_limit", "force", "runs", "csv", "split.file", "data.folder",
    "data.file", "data.test_file", "data.target", "data.title",
}  # fmt: skip


def all_of(group: str, kind: type) -> set[str]:
    return {f"{group}.{field.name}" for field in dataclasses.fields(kind)}


HOW |= all_of("trainer", TrainerConfig) | all_of("logger", LoggerConfig)
OF_LABELS = {
    "labels", "split_seed", "split.sha256", "classes.labelled", "classes.hidden", "classes.extra", "features",
    "classify", "generative_samples", "prediction_draws", "m1_seed", "data.labelled_in_pool",
}  # fmt: skip
OF_GENERATIVE_MODELS = all_of("objective", ObjectiveConfig) | all_of("optimizer", OptimizerConfig) | {
    "budget.name", "budget.epochs", "budget.passes", "budget.updates_per_epoch", "budget.unlabelled_per_step",
    "budget.labelled_per_step", "budget.precision", "model.z_dim", "model.a_dim", "model.h_dim", "model.likelihood",
    "model.mse_scale", "model.q_z", "model.q_log_var", "model.min_unit_sd", "network.name", "network.activation",
    "network.init", "network.init_sd", "network.norm", "network.dropout", "network.dropout_y", "m1_seed", "classifier",
    "features", "classify", "generative_samples", "prediction_draws", "likelihood_samples", "likelihood_estimator",
    "likelihood_rows", "selection", "classes.extra", "data.order",
}  # fmt: skip
UNUSED = {
    "model=m2": all_of("estimator", EstimatorConfig),
    "model=m1m2": all_of("estimator", EstimatorConfig),
    "model=m1 classifier=none": all_of("estimator", EstimatorConfig) | OF_LABELS,
    "model=m1 classifier=svm": set[str](),
    "model=tsvm": OF_GENERATIVE_MODELS,
}


def changed(value: Any) -> Any:
    """Another value of the same kind, sensible or not."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [*value, 7]
    return {int: 7, float: 0.123}.get(type(value), "another")


@pytest.mark.parametrize("words", UNUSED)
def test_every_setting_that_a_run_uses_is_part_of_its_name(words: str) -> None:
    def made() -> Config:
        return compose([*words.split(), "budget=paper"])

    nameless = set()
    for name, _ in schema.flatten(dataclasses.asdict(made())):
        if name == "m1":  # of a model without a first stage
            continue
        config = made()
        *path, last = name.split(".")
        owner: Any = config
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, last, changed(getattr(owner, last)))
        if schema.key(config, "sha") == schema.key(made(), "sha"):
            nameless.add(name)
    # A title is a word of the folder's name, and no more.
    assert nameless == (HOW | UNUSED[words]) - {"data.title"}


def test_the_m1_of_a_stack_has_the_key_of_the_same_m1_run_alone() -> None:
    stack = compose(["model=m1m2", "labels=600", "m1_seed=3", "seeds=[0,1]", "budget=paper", "m1.network.hidden=[500]"])
    first = schema.first_stage(stack)
    alone = compose(["model=m1", "classifier=none", "seeds=[3]", "budget=paper", "network.hidden=[500]"])
    assert first is not None
    assert first.seeds == [3]
    assert schema.key(first, "sha") == schema.key(alone, "sha")
    with_classifier = schema.first_stage(compose(["model=m1", "labels=100", "budget=paper", "network.hidden=[500]"]))
    assert with_classifier is not None
    assert schema.key(with_classifier, "sha") == schema.key(alone, "sha")
    all_rows = ["labels=all", "data.labelled_in_pool=true", "m1_seed=3", "budget=paper", "network.hidden=[500]"]
    all_labels = schema.first_stage(compose(["model=m1", *all_rows]))
    assert all_labels is not None
    assert schema.key(all_labels, "sha") == schema.key(alone, "sha")


def test_other_data_are_another_run() -> None:
    assert schema.key(compose([]), "sha") != schema.key(compose([]), "other")


def test_a_new_neutral_option_does_not_rename_old_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    before = schema.key(compose(["labels=600"]), "sha")

    @dataclasses.dataclass
    class Later(Config):
        new_option: int = 0

    values = {f.name: getattr(compose(["labels=600"]), f.name) for f in dataclasses.fields(Config)}
    monkeypatch.setattr(schema, "Config", Later)
    assert schema.key(Later(**values), "sha") == before
    assert schema.key(Later(**values, new_option=1), "sha") != before
