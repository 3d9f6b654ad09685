"""The schema: what it refuses, and what identifies a run."""

import contextlib
import subprocess
import sys

import pytest

from ssl_dgm import checks, rules
from ssl_dgm import config as schema
from ssl_dgm.compose import choices, compose, config_folder
from ssl_dgm.config import Config, UserError
from ssl_dgm.train import baseline_of

CONF = config_folder()
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
BUDGETS = sorted(path.stem for path in (CONF / "budget").glob("*.yaml"))
ALGORITHMS = ("wake_sleep", "monte_carlo_em")
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("model", MODELS)
def test_every_model_composes_with_every_budget(model: str, budget: str) -> None:
    config = compose([f"model={model}", f"budget={budget}"])
    assert config.model.name == model
    assert config.budget.name == budget
    assert config.m1 is None or config.m1.budget.name == budget


def test_every_deep_generative_model_has_every_budget() -> None:
    generative = [model for model in MODELS if not schema.is_estimator(compose([f"model={model}"]))]
    lacking = [(b, m) for b in BUDGETS for m in generative if not (CONF / "budget" / b / f"{m}.yaml").is_file()]
    assert not lacking, "a budget without a file leaves the paper's 3,000 epochs"


@pytest.mark.parametrize("group", ["data", "network", "objective", "optimizer", "trainer"])
def test_every_option_of_every_group_composes_and_names_itself(group: str) -> None:
    for option in choices()[group]:
        # Convolutions are refused where there are no images, algorithms where there are classes.
        needs = {"network": ["model=m2", "data=mnist"]}.get(group, ["model=m1"] if option in ALGORITHMS else [])
        config = compose([f"{group}={option}", *needs])
        name = getattr(getattr(config, group), "name", option)
        assert group == "objective" or option.startswith(name)  # mnist_semi_unsupervised is mnist


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_opens_with_its_notebook(experiment: str) -> None:
    compose([f"experiment={experiment}"])
    head = (CONF / "experiment" / f"{experiment}.yaml").read_text().split("\n\n")[0]
    for word in ("Source:", "Command:", "Expected:", "Time:"):
        assert word in head, f"{experiment}.yaml does not say {word}"
    assert f"experiment={experiment}" in head


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_no_experiment_of_the_papers_length_keeps_a_setting_of_a_shorter_budget(experiment: str) -> None:
    config = compose([f"experiment={experiment}"])
    assert config == compose([f"experiment={experiment}", f"budget={config.budget.name}"])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_budget_beside_an_experiment_is_that_of_the_run_or_refused(experiment: str) -> None:
    own = compose([f"experiment={experiment}"]).budget.name
    for budget in {"paper", "short", "smoke"} - {own}:
        words = [f"experiment={experiment}", f"budget={budget}"]
        with contextlib.suppress(UserError):
            assert compose(words).budget.name == budget
        assert compose([*words, f"budget.name={budget}"]).budget.name == budget, "lengths of a table's own"


def test_the_network_beside_a_model_is_the_one_of_the_command_line() -> None:
    beside = baseline_of(compose(["model=m2", "labels=600", "budget=paper", "optimizer.lr=1", "seeds=[4]"]))
    assert beside is not None
    assert schema.key(beside, "sha") == schema.key(compose(["model=nn", "labels=600"]), "sha")


REFUSED: list[tuple[str, str]] = [
    ("seeds=[]", "seeds=[] names no seed"),
    ("seeds=[1,1]", "repeats a seed"),
    ("seeds=[-1]", "negative seed"),
    ("optimizer.lr=nan", "optimizer.lr=nan is not a finite number"),
    ("optimizer.lr=inf", "optimizer.lr=inf is not a finite number"),
    ("m1.optimizer.lr=0", "m1.optimizer.lr=0.0 is not positive"),
    ("labels=-100", "labels=-100 is not positive"),
    ("labels=ten", "labels=ten is neither a number nor all; use for example labels=100"),
    ("labels=1.5", "labels=1.5 is of the wrong kind; use for example labels=100"),
    ("data.validation=0", "data.validation=0 is not positive"),
    ("data.target=y", "data.target=y is for data=csv, not for data=digits; leave it out"),
    ("data.file=a.npz", "data.file=a.npz is for data=npz or data=csv, not for data=digits; say which of those"),
    ("classes.extra=-1", "classes.extra=-1 is negative"),
    ("classes.labelled=[]", "classes.labelled=[] labels no class and labels=100; use labels=0 for clusters"),
    ("classes.hidden=[1,1]", "classes.hidden=[1, 1] is no list of classes"),
    ("classes.labelled=[-1]", "classes.labelled=[-1] is no list of classes"),
    ("budget.epochs=0", "budget.epochs=0 is not positive"),
    ("objective.free_bits=-1", "objective.free_bits=-1.0 is negative"),
    ("objective.latents_weight=-1", "objective.latents_weight=-1.0 is negative"),
    ("classifier=svn", "classifier=svn is unknown; the nearest is svm"),
    ("baseline=nnn", "baseline=nnn is unknown; the nearest is nn"),
    ("baseline=adgm", "baseline=adgm is unknown; there are cae, cnn, "),
    ("model.name=m3", "model.name=m3 is unknown; the nearest is m"),
    ("m1_seed=-1", "m1_seed=-1 is negative; use for example m1_seed=0"),
    ("selection=best", "selection=best is unknown; the nearest is best_validation"),
    ("network.hidden=[]", "network.hidden=[]"),
    ("network.name=cnn", "network.name=cnn is unknown"),
    ("budget.labelled_per_step=some", "budget.labelled_per_step=some is unknown"),
    ("time_limit=soon", "time_limit=soon is no duration; write 90s, 9m or 1.5h"),
    ("time_limit=0", "time_limit=0 is no duration"),
]  # fmt: skip


def test_titles_are_called_and_name_folders_but_identify_no_run() -> None:
    def titled(title: str) -> Config:
        return compose(["model=m2", "data=npz", "data.file=a (1).npz", f"data.title={title}"])

    plain, copy = compose(["model=m2", "data=npz"]), titled("CIFAR-10 (JPEG copy), 'cut'")
    assert (plain.data.called, copy.data.called) == ("npz", "CIFAR-10 (JPEG copy), 'cut'")
    assert copy.data.file == "a (1).npz"
    words, _, hashed = schema.key(copy, "sha").rpartition("-")
    assert words == "m2-cifar_10_jpeg_copy_cut-all-short"
    assert schema.key(plain, "sha") == f"m2-npz-all-short-{hashed}"
    assert schema.key(titled("Gräser"), "sha").startswith("m2-graser-all-")
    assert schema.key(titled("草"), "sha") == f"m2-npz-all-short-{hashed}"
    for title in ("two\nlines", " ", "x" * 81):
        copy.data.title = title
        with pytest.raises(UserError, match="is no title; use one line of at most 80 characters"):
            rules.check(copy)


def test_the_values_of_a_sweep_stay_apart() -> None:
    words = ["-m", "data.file=a(1).npz,b(1).npz", "data.file='quoted (1)'", "labels=1,2"]
    assert checks.quoted(words) == words
    assert checks.quoted(words[1:2]) == ["data.file='a(1).npz,b(1).npz'"]


REFUSED_TOGETHER: list[tuple[str, str]] = [
    ("experiment=jonemeth_m2 budget=short", "budget=short is overruled by experiment=jonemeth_m2, whose lengths"),
    ("data=mnist data.file=a", "or leave it out (data=mnist is looked for in the folder that SSL_DGM_DATA names)"),
    ("data=folder data.file=a", "data.file=a is for data=npz or data=csv, not for data=folder; use data.folder=..."),
    ("model=m2 network=conv", "network.name=conv convolves images, whose 8 x 8 pixels are too few; use network=mlp"),
    ("model=m1 data=mnist network=figueroa data.min_pixel_sd=0.1", "use data.min_pixel_sd=0, or network=mlp"),
    ("model=m1m2 data=mnist network=conv", "network.name=conv has no use in stage 2 of m1m2, which sees no pixels"),
    ("model=m1m2 data=mnist model.likelihood=mse", "use auto, and m1.model.likelihood=mse"),
    ("model=m1m2 network@m1.network=conv", "m1.network.name=conv convolves images, whose 8 x 8 pixels are too few"),
    ("model=m2 data=mnist model.likelihood=categorical", "data.pixels=sampled makes pixels 0 or 1; add data"),
    ("model=m2 model.mse_scale=2", "model.mse_scale=2.0 has no use with model.likelihood=auto; add model"),
    ("model=m2 data=memmap trainer.devices=2 network.norm=batch", "network.norm=batch needs whole batches"),
    ("model=m2 data=memmap trainer.devices=2 objective.metric=1", "sees labelled and unlabelled rows together"),
    ("model=gmvae data=mnist labels=0", "takes classes from labelled rows, and labels=0; use 0 for both"),
    ("model=gmvae data=mnist objective.assignment=0", "labels=100 tells gmvae nothing with objective.assignment=0"),
    ("model=gmvae data=mnist objective.class_threshold=0.1", "leaves out classes of a sum, and gmvae has none"),
    ("model=gmvae objective.assignment_epochs=-1", "objective.assignment_epochs=-1.0 is negative"),
    ("model=m2 objective.assignment_epochs=2", "assignment_epochs=2.0 is of the auxiliary terms, which objective.assi"),
    ("model=gmvae data=mnist objective.class_terms=2", "class_terms=2 leaves out classes of a sum, and gmvae has none"),
    ("model=m2 objective.class_terms=1", "without all classes but the likeliest; use 2, or 0 for all"),
    ("model=m2 objective.class_terms=-1", "objective.class_terms=-1 is negative"),
    ("model=m2 objective.class_terms=2 objective.class_threshold=0.1", "both leave classes out; use 0 for one"),
    ("model=m2 network=conv data=mnist data.pca=9", "without a place; use network.name=mlp, or leave"),
    ("model=m2 data=mnist data.pca=9 data.min_pixel_sd=0.1", "both leave out what doesn't vary; use data.min"),
    ("model=m2 data=mnist data.side=32", "data.side=32 resizes images of norb, lfw, folder, not of mnist"),
    ("model=m2 data=mnist data.extra=false", "data=mnist has no extra rows; leave it out"),
    ("model=sdgm model.q_z=x", "model.q_z=x is of model=m2, and sdgm has no use for it"),
    ("model=m2 model.q_z=x model.q_log_var=x", "m2 with model.q_z=x has no use for it"),
    ("model=m1m2 m1.objective.metric=1", "m1.objective.metric=1.0 needs classes, and M1 has none; use 0"),
    ("model=m1m2 m1.objective.assignment_epochs=1", "m1.objective.assignment_epochs=1.0 needs classes"),
    ("model=m2 data=memmap trainer.devices=2 objective.free_bits=1", "compares the mean cost of a whole batch"),
    ("model=m2 optimizer.schedule=step optimizer.final_lr=1", "optimizer.final_lr=1.0 is above optimizer.lr="),
    ("model=avae objective.metric=1", "needs a model with classes, and avae has none"),
    ("model=m2 data.train_rows=50", "labels=100 is more than data.train_rows=50; use fewer labels, or more rows"),
    ("model=m2 data=memmap data.train_rows=50 labels=10", "data.train_rows=50 is not for data=memmap"),
    ("model=m2 data.pool=train+validation data.train_rows=500", "is not for data.pool=train+validation; leave one out"),
    ("model=m2 data=memmap budget.passes=2", "budget.passes=2 shuffles rows anew, and data=memmap does not; use 1"),
    ("model=m2 objective=wake_sleep", "is for Gaussian latents without classes, as m1 has, and m2 has others"),
    ("model=m1m2 m1.objective.algorithm=wake_sleep", "is not for the first stage of m1m2; use bound, or model=m1"),
    ("model=m1 data=memmap classifier=none objective=wake_sleep", "objective.algorithm=wake_sleep is not for data=mem"),
    ("model=m1 data=mnist objective=wake_sleep", "objective.warm_up_epochs=30.0 weighs terms of the bound, which"),
    ("model=m2 network.dropout=1", "network.dropout=1.0 is no share of units; use 0, or for example 0.5"),
    ("model=m2 network.dropout_y=-0.1", "network.dropout_y=-0.1 is no share of units; use 0, or for example 0.5"),
    ("model=avae network.dropout_y=0.5", "network.dropout_y=0.5 is of q(y | x), which avae has not; leave it out"),
    ("model=m1m2 m1.network.dropout_y=0.5", "m1.network.dropout_y=0.5 is of q(y | x), which M1 has not"),
    ("model=m1 objective=wake_sleep network.dropout=0.5", "wake_sleep does not maximise; use network.dropout=0"),
    ("model=m1 objective=monte_carlo_em objective.draws=2", "monte_carlo_em has one chain a row; use objective.draws"),
    ("model=m1 likelihood_estimator=hmc", "likelihood_estimator=hmc has no use with likelihood_samples=0"),
    ("classify=generative selection=best_validation", "selection=best_validation takes the epoch at which q"),
    ("model=m2 selection=best_validation trainer.validate_every=2", "of them; add trainer.validate_every=1"),
    ("model=m2 classifier=tsvm", "classifier=tsvm is fitted on the features of model=m1, not of m2; leave it out"),
    ("model=m1 selection=best_validation", "and classifier=svm is what is scored here; use classifier=none"),
    ("model=m1 classifier=knn likelihood_samples=9", "likelihood_samples=9 is of an M1 by itself"),
    ("model=gmvae data=mnist objective.labelled=1", "objective.labelled=1.0 weighs the bound of labelled rows, and"),
    ("model=m2 likelihood_samples=9 likelihood_estimator=hmc", "and m2 has others; use likelihood_estimator=q"),
    ("model=m2 likelihood_samples=-1", "likelihood_samples=-1 is negative"),
    ("model=m2 condition=center", "condition=center is not for model=m2; use model=cvae"),
    ("model=cvae condition=null", "condition=None is not for model=cvae"),
    ("model=m2 features=sample", "features=sample is what a classifier on an M1 sees; leave it out of model=m2"),
    ("model=m1 classifier=none features=sample", "leave it out of model=m1 classifier=none"),
    ("model=knn labels=10 estimator.neighbours=50", "estimator.neighbours=50 is more than labels=10; use as many at"),
    ("classifier=knn model=m1 labels=10 estimator.neighbours=50", "estimator.neighbours=50 is more than labels=10"),
    ("experiment=figueroa_clustering classes.labelled=[1]", "labels=0 labels no class, whatever classes.labelled=[1]"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "sentence"), REFUSED_TOGETHER)
def test_values_that_do_not_go_together_are_refused_with_a_sentence(words: str, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        compose(words.split())
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_m1_of_a_stack_may_see_images() -> None:
    stack = compose(["model=m1m2", "data=mnist", "network@m1.network=conv", "m1.model.likelihood=gaussian"])
    assert stack.m1 is not None
    assert (stack.network.name, stack.m1.network.name, stack.m1.network.norm) == ("mlp", "conv", "batch")


@pytest.mark.parametrize(("override", "sentence"), REFUSED)
def test_bad_values_are_refused_with_a_sentence(override: str, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        compose([override])
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("classes.labelled=[0,1] classes.hidden=[1,2]", "class 1 is in classes.labelled and in classes.hidden"),
        ("labels=0 classes.labelled=[0,1]", r"whatever classes.labelled=\[0, 1\] says; use classes.labelled=null"),
        ("labels=0 classes.hidden=[4]", r"whatever classes.hidden=\[4\] says; use classes.hidden=null"),
        ("data=memmap data.folder=x model=m2 data.pool=train+validation", "data.pool=train.validation needs rows"),
        ("labels=0 model=nn", "labels=0 leaves model=nn nothing to learn from"),
        ("labels=0 model=m1 classifier=knn", "labels=0 leaves model=m1 classifier=knn nothing"),
    ],
)
def test_settings_that_contradict_each_other(words: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        compose(words.split())


def test_semi_unsupervised_mnist_is_mnist_with_its_own_number_of_labels() -> None:
    config = compose(["data=mnist_semi_unsupervised", "model=m2"])
    assert (config.data.name, config.labels, config.classes.extra) == ("mnist", 500, 5)
    assert list(config.classes.labelled or ()) == [0, 1, 2, 8, 9]
    same = ["data=mnist", "model=m2", "labels=500", "classes.labelled=[0,1,2,8,9]", "classes.extra=5"]
    assert schema.key(config, "sha") == schema.key(compose(same), "sha")
    assert compose(["data=mnist_semi_unsupervised", "labels=250"]).labels == 250
    assert baseline_of(compose(["model=m2", "labels=0"])) is None, "it would have nothing to learn from"


@pytest.mark.parametrize(
    ("word", "remedy"),
    [
        ("lables=100", "'lables' is not a setting; the nearest is labels"),
        ("optimizer.lrr=1", "'optimizer.lrr' is not a setting; the nearest is optimizer.lr"),
        ("lr=1", "'lr' is not a setting; write optimizer.lr"),
        ("100", "'100' is not a key=value pair"),
    ],
)
def test_misspelt_keys_name_the_nearest(word: str, remedy: str) -> None:
    with pytest.raises(UserError, match=remedy.replace(".", r"\.")):
        checks.check_keys(["labels=100", word])


@pytest.mark.parametrize("word", ["data.order=by_class", "++data.order=shuffled,by_class"])
def test_an_order_that_leaks_the_classes_is_for_its_experiment_alone(word: str) -> None:
    with pytest.raises(UserError, match=r"leaks which unlabelled rows .* experiment=maaloe2015_by_class"):
        checks.check_keys(["labels=100", word])
    leaking = compose(["data=memmap", "data.folder=x", "model=m2"])
    leaking.data.order = "by_class"  # as that experiment's file may say
    with pytest.raises(UserError, match=r"data\.order=by_class needs the class of every row"):
        rules.check(leaking)


def test_every_key_of_the_schema_is_accepted() -> None:
    checks.check_keys(
        [f"{key}=1" for key in checks.valid_keys()] + ["experiment=x", "hydra.verbose=true", "~experiment"]
    )


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("9m", 540), ("1.5h", 5400), ("45", 45)])
def test_durations(text: str, expected: float) -> None:
    assert checks.seconds(text) == expected


@pytest.mark.parametrize("call", ["import ssl_dgm.train", "import ssl_dgm.tables.collect, ssl_dgm.tables.render"])
def test_commands_start_without_torch(call: str) -> None:
    code = f"{call}; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_launcher_that_is_not_here_is_told_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = checks.explain("In 'hydra/config': Could not find 'hydra/launcher/ray'", choices())
    assert sentence == "hydra/launcher=ray is not installed here; pip install '.[ray]'"
    monkeypatch.setenv("PATH", "")
    checks.check_launcher(["hydra/launcher=joblib"])
    with pytest.raises(UserError, match="submits jobs with srun, which is not on this machine; use hydra/launcher="):
        checks.check_launcher(["hydra/launcher=submitit_slurm"])


@pytest.mark.parametrize(
    ("words", "pixels"),
    [
        (["data=mnist"], "sampled"),
        (["data=mnist_semi_unsupervised"], "sampled"),
        (["experiment=figueroa_fashion"], "sampled"),
        (["experiment=figueroa_svhn"], "grey"),
        (["data=cifar10", "labels=1000"], "grey"),
        (["data=npz", "data.file=my.npz"], "grey"),
    ],
)
def test_only_strokes_of_ink_are_tossed_for_by_the_short_gmvae(words: list[str], pixels: str) -> None:
    assert compose(["model=gmvae", "budget=short", *words]).data.pixels == pixels


def test_the_gmvae_on_svhn_has_the_batches_of_the_paper() -> None:
    budget = compose(["experiment=figueroa_svhn", "budget=paper"]).budget
    assert (budget.labelled_per_step, budget.unlabelled_per_step) == (200, 200)
    # As many updates as there are 200 unlabelled rows for, of the 63,257 training rows.
    assert budget.updates_per_epoch >= 63_257 // 200
