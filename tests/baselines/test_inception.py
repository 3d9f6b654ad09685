"""Inception's features are torchvision's, are computed once, and come from no file that is not what it should be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import inception_v3
from torchvision.transforms import v2

from ssl_dgm.baselines import features
from ssl_dgm.baselines.inception import Inception
from ssl_dgm.config import UserError

COLOURS = (3, 16, 12)
GREY = (1, 12, 12)


def rows(number: int, image: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(0).random((number, int(np.prod(image))), np.float32)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as torchvision publishes them: with the classifiers, without counters of batches."""
    network = inception_v3(weights=None, init_weights=False)
    frozen = features.inception("random").state_dict()
    state = {name: frozen.get(name, value) for name, value in network.state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save({name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}, path)
    return path


@pytest.mark.parametrize("image", [COLOURS, GREY], ids=["colours", "grey"])
def test_features_are_torchvisions(image: tuple[int, int, int], file: Path, tmp_path: Path) -> None:
    x = rows(1, image)
    theirs = inception_v3(weights=None, transform_input=True, init_weights=False)
    theirs.load_state_dict(torch.load(file, weights_only=True), strict=False)
    theirs.fc = nn.Identity()
    channels, height, width = image
    pixels = np.repeat(x.reshape(1, height, width, channels), 3 // channels, axis=3).transpose(0, 3, 1, 2)
    prepare = v2.Compose([v2.Resize((299, 299)), v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    with torch.no_grad():
        wanted = theirs.eval()(prepare(torch.from_numpy(pixels.copy())))
    found = features.extracted(x, image, str(file), "imagenet", tmp_path)
    assert found.shape == (1, 2048) and found.std() > 0.01
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_the_papers_scaling_repeats_pixels() -> None:
    images = torch.rand(2, 1, 4, 5)
    wanted = images.repeat_interleave(7, 2).repeat_interleave(7, 3).expand(2, 3, 28, 35)
    assert torch.equal(features.scaled(images, "paper"), wanted)


def test_features_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, runs = rows(3, GREY), []
    real = features.inception

    def counted(weights: str, device: str) -> nn.Module:
        runs.append(weights)
        return real(weights, device)

    monkeypatch.setattr(features, "inception", counted)

    def extracted(x: np.ndarray, scaling: str = "paper") -> np.ndarray:
        return features.extracted(x, GREY, "random", scaling, tmp_path)

    first = extracted(x)
    np.testing.assert_array_equal(extracted(x), first)
    assert len(runs) == 1 and len(list(tmp_path.iterdir())) == 1
    (kept,) = tmp_path.iterdir()
    whole = kept.read_bytes()
    other_bit = whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]
    for damage in (other_bit, whole[:-40], b"\x80\x04K\x01."):  # the last is a pickle
        kept.write_bytes(damage)
        np.testing.assert_array_equal(extracted(x), first)
    assert len(runs) == 4
    assert np.abs(extracted(x[::-1]) - first[::-1]).max() < 1e-4 and len(runs) == 5
    assert np.abs(extracted(x, "imagenet") - first).max() > 1e-3 and len(runs) == 6


def changed(state: dict[str, Tensor], how: str) -> object:
    first = next(iter(state))
    match how:
        case "missing":
            return {name: value for name, value in state.items() if name != first}
        case "shape":
            return state | {first: state[first][:1]}
        case "unknown":
            return state | {"layer9.weight": torch.zeros(1)}
    return list(state.values())


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("missing", r"Conv2d_1a_3x3.conv.weight is missing"),
        ("shape", r"has shape \(1, 3, 3, 3\) instead of \(32, 3, 3, 3\)"),
        ("unknown", r"layer9.weight is unknown"),
        ("list", r"a list is not names and tensors"),
    ],
)
def test_weights_of_another_network_are_refused(how: str, sentence: str, file: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(changed(torch.load(file, weights_only=True), how), path)
    with pytest.raises(UserError, match=sentence):
        Inception(weights=str(path), cache=str(tmp_path / "cache")).fit(rows(4, GREY), [0, 1, 0, 1])


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_files_that_are_no_weights_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(UserError, match="is no file"):
        features.inception(str(path))
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="cannot be read"):
        features.inception(str(path))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"a": Path("b")}, path)
    with pytest.raises(UserError, match="cannot be read"):
        features.inception(str(path))


def test_safetensors_are_weights_too(file: Path, tmp_path: Path) -> None:
    state = torch.load(file, weights_only=True)
    save_file(state, tmp_path / "w.safetensors")
    loaded = features.inception(str(tmp_path / "w.safetensors")).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.items() if name in state)


def test_weights_that_cannot_be_downloaded_name_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody listens
    with pytest.raises(UserError, match=r"could not be downloaded .*weights=<its path>"):
        features.inception("imagenet")


@pytest.mark.parametrize(
    ("settings", "pixels", "sentence"),
    [
        ({"scaling": "none"}, 144, "scaling=none is unknown; there are imagenet, paper"),
        ({}, 192 * 3, None),
        ({}, 143, "143 values are no square grey images"),
        ({"image": (2, 6, 12)}, 144, "2 channels and Inception sees 1 or 3"),
        ({"scaling": "paper"}, 100, "makes 70 x 70 of 10 x 10 pixels, and Inception needs 75"),
        ({"cache": "/proc/nowhere"}, 144, "cache=/proc/nowhere cannot be written to"),
    ],
)
def test_what_cannot_be_seen_is_refused(
    settings: dict[str, object], pixels: int, sentence: str | None, tmp_path: Path
) -> None:
    estimator = Inception(**({"cache": str(tmp_path), "weights": "nowhere.pth"} | settings))
    x = np.zeros((2, pixels), np.float32)
    with pytest.raises(UserError, match=sentence or "weights=nowhere.pth is no file"):
        estimator.fit(x, [0, 1])


def test_the_dense_layer_learns_from_features(tmp_path: Path) -> None:
    x = np.concatenate([0.2 * rows(4, GREY), 0.2 * rows(4, GREY) + 0.7])
    y = np.array([0, 0, 0, -1, 1, 1, -1, 1])
    settings = dict(weights="random", scaling="paper", cache=str(tmp_path), learning_rate=1e-3, batch_size=3)
    first, again = (Inception(epochs=40, random_state=0, **settings).fit(x, y) for _ in range(2))
    assert list(first.predict(x)) == [0] * 4 + [1] * 4
    np.testing.assert_array_equal(first.predict_proba(x), again.predict_proba(x))


def test_updates_end_when_the_training_loss_no_longer_falls(tmp_path: Path) -> None:
    settings = dict(weights="random", scaling="paper", cache=str(tmp_path), random_state=0)
    x, y = rows(6, GREY), [0, 1, 0, 1, 0, 1]
    # A rate of 0 changes nothing, so that without dropout the loss is the same forever.
    still = Inception(epochs=10**9, patience=2, learning_rate=0.0, dropout=0.0, **settings).fit(x, y)
    assert np.isfinite(still.predict_proba(x)).all()
