"""ssl_dgm.fit and ssl_dgm.load: what is loaded is what was trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import ssl_dgm
from ssl_dgm import UserError, records
from ssl_dgm.data import sources
from ssl_dgm.files import read_json
from ssl_dgm.tables import collect

TINY = ("data=digits", "labels=100", "budget=smoke", "network.hidden=[24]", "seeds=[0,3]", "trainer.progress=false")
DIGITS = sources.load("digits")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        ("model=m2",),
        ("model=m1m2",),
        ("model=nn",),
        ("model=m1", "classifier=svm"),
        ("model=m2", "data.min_pixel_sd=0.1", "network.norm=batch"),
    ],
    ids=" ".join,
)
def test_a_loaded_seed_makes_the_errors_of_its_record(words: tuple[str, ...]) -> None:
    fitted = ssl_dgm.fit(*TINY, *words, verbose=False)
    other = ssl_dgm.load(fitted.folder, seed=3)
    for one, seed in ((fitted, 0), (other, 3)):
        assert one.seed == one.record["seed"] == seed
        error = np.mean(one.predict(DIGITS.test_x) != DIGITS.test_y)
        assert error == pytest.approx(one.metrics["test/error"], abs=1e-7)
    assert other.split is not None and fitted.split is not None
    assert other.split.sha256 != fitted.split.sha256


def test_what_is_finished_is_not_trained_again() -> None:
    ssl_dgm.fit(*TINY, "model=m2", verbose=False)
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("result.json")}
    again = ssl_dgm.fit(*TINY, "model=m2", seed=3, verbose=False)
    assert again.seed == 3
    assert before == {path: path.stat().st_mtime_ns for path in Path("runs").rglob("result.json")}


def test_images_rows_bytes_and_floats_are_the_same_to_it() -> None:
    fitted = ssl_dgm.fit(*TINY, "model=m2", verbose=False)
    x = DIGITS.test_x[:50]
    probabilities = fitted.predict_proba(x)
    assert probabilities.shape == (50, 10)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(1), fitted.predict(x))
    for same in (x / 255, (x / 255).astype(np.float32), x.reshape(50, 8, 8), (x / 255).tolist()):
        np.testing.assert_allclose(fitted.predict_proba(same), probabilities, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_seen_is_refused_in_a_sentence() -> None:
    fitted = ssl_dgm.fit(*TINY, "model=m2", verbose=False)
    for x, words in (
        (DIGITS.test_x[:, :5], r"shape \(500, 5\); use \[N, 64\]"),
        (DIGITS.test_x[0], "shape"),
        (DIGITS.test_x[:0], "x has no rows"),
        (7, r"shape \(\); use \[N, 64\]"),
        (DIGITS.test_x.astype(float), r"x is float64 from 0.0 to 255.0; give uint8 .*: x / 255 if 255 is white"),
        (np.full((1, 64), np.nan), "x is float64 from nan to nan"),
        (DIGITS.test_x.astype(int) // 3, "x is int64 from 0 to 85; give uint8 from 0 to 255"),
    ):
        with pytest.raises(UserError, match=words):
            fitted.predict(x)
    with pytest.raises(UserError, match="there are 0 to 9"):
        fitted.sample(1, y=10)
    with pytest.raises(UserError, match="y=seven is no class"):
        fitted.sample(1, y="seven")
    with pytest.raises(UserError, match="n=0 is no number of samples"):
        fitted.sample(0)
    with pytest.raises(UserError, match=r"y=1\.5 is no whole number"):
        fitted.sample(1, y=1.5)
    with pytest.raises(UserError, match=r"n=2\.0 is no whole number"):
        fitted.sample(2.0)
    with pytest.raises(UserError, match="seed='0' is no whole number"):
        ssl_dgm.load(fitted, seed="0")
    with pytest.raises(UserError, match=r"x makes no array .*; give rows of one length"):
        fitted.predict([[0.0] * 64, [0.0]])
    wanting = torch.zeros(1, 64, requires_grad=True)
    np.testing.assert_array_equal(fitted.predict(wanting), fitted.predict(np.zeros((1, 64))))
    np.testing.assert_array_equal(fitted.sample(np.int64(2), y=np.uint8(7)), fitted.sample(2, y=7))
    with pytest.raises(UserError, match="has no M1"):
        fitted.transform(DIGITS.test_x)


def test_samples_are_images_and_repeat_with_their_seed() -> None:
    fitted = ssl_dgm.fit(*TINY, "model=m1m2", verbose=False)
    images = fitted.sample(12)
    assert images.shape == (12, 8, 8)
    assert 0 <= images.min() <= images.max() <= 1
    np.testing.assert_array_equal(images, fitted.sample(12))
    assert not np.array_equal(images, fitted.sample(12, seed=1))
    assert not np.array_equal(fitted.sample(3, y=4), fitted.sample(3, y=5))


def test_the_features_of_an_m1_are_those_that_a_stack_stands_on() -> None:
    alone = ssl_dgm.fit(*TINY, "model=m1", "classifier=none", "seeds=[0]", "network.hidden=[600,600]", verbose=False)
    stack = ssl_dgm.fit(*TINY, "model=m1m2", verbose=False)
    assert len(list(Path("runs").glob("m1-*"))) == 1, "they share their M1"
    np.testing.assert_allclose(alone.transform(DIGITS.test_x), stack.transform(DIGITS.test_x), rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="has no classes"):
        alone.predict(DIGITS.test_x)


def test_a_conditional_model_completes_images() -> None:
    fitted = ssl_dgm.fit(*TINY, "model=cvae", "seeds=[0]", verbose=False)
    completed = fitted.complete(DIGITS.test_x[:3])
    assert completed.shape == (3, 8, 8, 8)
    assert not np.array_equal(completed[:, 0], completed[:, 1])
    assert not np.array_equal(completed[0], completed[1])
    with pytest.raises(UserError, match="draws images around a part that is given; use complete"):
        fitted.sample(2)
    with pytest.raises(UserError, match="is not conditioned on a part of x; use model=cvae"):
        ssl_dgm.fit(*TINY, "model=m2", "seeds=[0]", verbose=False).complete(DIGITS.test_x[:3])


def test_probabilities_are_averaged_over_the_draws_before_y() -> None:
    one, many = (
        ssl_dgm.fit(*TINY, "model=sdgm", "seeds=[0]", f"prediction_draws={draws}", verbose=False) for draws in (1, 50)
    )
    np.testing.assert_allclose(many.predict_proba(DIGITS.test_x).sum(1), 1, atol=1e-5)
    spread = np.abs(one.predict_proba(DIGITS.test_x[::-1])[::-1] - one.predict_proba(DIGITS.test_x)).mean()
    averaged = np.abs(many.predict_proba(DIGITS.test_x[::-1])[::-1] - many.predict_proba(DIGITS.test_x)).mean()
    assert averaged < 0.5 * spread, "the same weights, other draws"


def test_runs_are_found_by_folder_and_by_the_beginning_of_their_name() -> None:
    fitted = ssl_dgm.fit(*TINY, "model=nn", verbose=False)
    assert ssl_dgm.load("runs/nn-digits").folder == ssl_dgm.load("nn-digits").folder == fitted.folder
    assert ssl_dgm.load(fitted, seed=3).seed == 3
    for run, seed, words in (
        ("runs/m2", None, "runs/m2 is no run"),
        (fitted, 7, "seed 7 .* is not finished; there are 0, 3"),
    ):
        with pytest.raises(UserError, match=words):
            ssl_dgm.load(run, seed)


def test_damaged_weights_are_not_loaded() -> None:
    fitted = ssl_dgm.fit(*TINY, "model=m2", verbose=False)
    path = fitted.folder / "seed-3" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"seed-3/weights.safetensors is damaged; run the command in .*README.md"):
        ssl_dgm.load(fitted, seed=3)
    mended = ssl_dgm.fit(*TINY, "model=m2", seed=3, verbose=False)
    assert mended.metrics == ssl_dgm.load(fitted, seed=3).metrics


def test_a_stack_whose_m1_was_trained_again_to_other_weights_is_not_loaded() -> None:
    stack = ssl_dgm.fit(*TINY, "model=m1m2", verbose=False)
    (first,) = Path("runs").glob("m1-*")
    record = read_json(first / "seed-0" / "result.json")
    weights = load_file(first / "seed-0" / "weights.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, first / "seed-0" / "weights.safetensors")
    digest = records.weights_sha256(first, 0)
    records.save(first, record | {"weights_sha256": digest})
    with pytest.raises(UserError, match="has other weights than the M1 that seed 0"):
        ssl_dgm.load(stack)


def test_arrays_beside_data_of_another_kind_are_refused() -> None:
    with pytest.raises(UserError, match="has data=digits and arrays; give it one of them"):
        ssl_dgm.fit(*TINY, "model=m2", x=DIGITS.test_x, y=DIGITS.test_y, x_test=DIGITS.test_x, y_test=DIGITS.test_y)
    assert not list(Path().iterdir())


def test_arrays_without_their_names_are_refused() -> None:
    with pytest.raises(UserError, match=r"settings are words like 'model=m2', not ndarray; give arrays by name: x="):
        ssl_dgm.fit(DIGITS.train_x, DIGITS.train_y)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="not ndarray; give arrays by name"):
        ssl_dgm.fit(DIGITS.train_x, y=DIGITS.train_y)  # type: ignore[arg-type]


def test_an_estimators_probabilities_are_of_all_classes() -> None:
    fitted = ssl_dgm.fit("model=nn", "data=digits", "classes.hidden=[3,4]", "labels=80", verbose=False)
    probabilities = fitted.predict_proba(DIGITS.test_x)
    assert probabilities.shape == (len(DIGITS.test_x), len(fitted.classes)) and not probabilities[:, [3, 4]].any()
    np.testing.assert_array_equal(probabilities.argmax(1), fitted.predict(DIGITS.test_x))
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_a_seed_that_is_lost_says_why() -> None:
    with pytest.raises(UserError, match=r"seed 0 has no result: .* became non-finite"):
        ssl_dgm.fit(*TINY, "model=m2", "seeds=[0]", "optimizer.lr=1e30", verbose=False)


def test_a_seed_that_is_not_trained_is_refused_before_any_is() -> None:
    with pytest.raises(UserError, match=r"seed=4 is not of seeds=\[0\], which are trained; name one of them"):
        ssl_dgm.fit(*TINY, "model=m2", "seeds=[0]", "budget.epochs=9", seed=4, verbose=False)
    assert not list(Path("runs").glob("*/seed-*"))


def test_estimators_choose_no_epoch_and_rows_are_written() -> None:
    ssl_dgm.fit(*TINY, "model=nn", "selection=best_validation", verbose=False)
    rows = collect.read(Path("runs/rows.csv"), print)
    assert {(row["selection"], row["validation_labels"]) for row in rows} == {("last", "0")}
    ssl_dgm.fit(*TINY, "model=m2", "selection=best_validation", verbose=False)
    rows = [row for row in collect.read(Path("runs/rows.csv"), print) if row["model"] == "m2"]
    assert {(row["selection"], row["validation_labels"]) for row in rows} == {("best_validation", "200")}
