"""Features of images by torchvision's Inception v3: its weights, its inputs, and a cache on the disk.

N images, B of them at once.
"""

import hashlib
import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_dgm.bars import bar
from ssl_dgm.baselines.neural import Image, built, to_maps
from ssl_dgm.checks import nearest
from ssl_dgm.config import UserError
from ssl_dgm.files import sha256_of, write_atomic

NUM_FEATURES = 2048
LEAST_PIXELS = 75  # of a side, below which the network's last maps are empty
BESIDE = ("fc.", "AuxLogits.")  # the classifier and its auxiliary are no part of the features
SCALINGS = ("imagenet", "paper")


def extracted(
    rows: np.ndarray,
    image: Image,
    weights: str,
    scaling: str,
    cache: str | Path | None,
    device: str = "cpu",
    batch_size: int = 32,
    verbose: bool = False,
) -> np.ndarray:
    """The pooled features, float32 [N, 2048], of rows [N, D] in [0, 1]; computed once and then read from `cache`.

    Args:
        image: (channels, height, width) of a row; one channel is taken for all three colours.
        weights: 'imagenet', 'random', or the path of a state_dict of torchvision's network.
        scaling: see `scaled`.
        cache: a folder; None: ~/.cache/ssl_dgm/features.

    Raises:
        UserError: for an unknown scaling, images that the network can't see, weights that are not there or not its, and
            a folder that can't be written to.
    """
    check(image, scaling)
    path = _folder(cache) / f"{_named(rows, image, weights, scaling)}.npy"
    if (kept := _read(path, len(rows))) is not None:
        return kept
    network = inception(weights, device)
    found = []
    with torch.no_grad(), bar("Inception", "image", total=len(rows), disable=not verbose) as done:
        for some in torch.from_numpy(np.require(rows, np.float32, ["C", "W"])).split(batch_size):
            found.append(network(scaled(to_maps(some.to(device), image), scaling)).cpu())
            done.update(len(some))
    features = torch.cat(found).numpy()
    write_atomic(path, lambda temporary: _write(temporary, features))
    return features


def check(image: Image, scaling: str) -> None:
    """Nothing, for images that the network can see in this scaling.

    Raises:
        UserError: for an unknown scaling, a wrong number of channels, or images that are too small.
    """
    channels, height, width = image
    if scaling not in SCALINGS:
        raise UserError(f"scaling={scaling} is unknown; {nearest(scaling, list(SCALINGS))}")
    if channels not in (1, 3):
        raise UserError(f"image={tuple(image)} has {channels} channels and Inception sees 1 or 3; give it such images")
    if scaling == "paper" and 7 * min(height, width) < LEAST_PIXELS:
        raise UserError(
            f"scaling=paper makes {7 * height} x {7 * width} of {height} x {width} pixels, and Inception needs "
            f"{LEAST_PIXELS}; use scaling=imagenet"
        )


def scaled(images: Tensor, scaling: str) -> Tensor:
    """What the network is given, [B, 3, height, width], of images [B, 1 or 3, height, width] in [0, 1].

    imagenet: 299 x 299 pixels, bilinear, normalised as for ImageNet. paper: 7 times as large by repeated pixels, left
    in [0, 1], as in the notebook of B. Keng that Ojha describes (224 x 224 of 32 x 32).
    """
    images = images.expand(-1, 3, -1, -1)
    if scaling == "paper":
        return F.interpolate(images, scale_factor=7, mode="nearest")
    large = F.interpolate(images, (299, 299), mode="bilinear", antialias=True)
    # ImageNet's mean and s.d. with the `transform_input` that torchvision's weights go with: it undoes them.
    return 2 * large - 1


def inception(weights: str, device: str = "cpu") -> nn.Module:
    """torchvision's Inception v3 up to its pooled features, frozen, in evaluation mode: [B, 3, H, W] to [B, 2048].

    Raises:
        UserError: if the weights are not there or not this network's, or torchvision can't be imported.
    """
    network = built(_empty, torch.Generator(device).manual_seed(0))
    if weights == "random":
        _reset_norms(network)
    else:
        state = _read_weights(weights)
        if problem := _mismatch(state, network.state_dict()):
            raise UserError(
                f"weights={weights} are not of torchvision's inception_v3: {problem}; use its state_dict, "
                "weights=imagenet or weights=random"
            )
        network.load_state_dict({name: value for name, value in state.items() if not name.startswith(BESIDE)})
    return network.eval().requires_grad_(False)


def _empty() -> nn.Module:
    try:
        from torchvision.models import inception_v3
    except (ImportError, RuntimeError) as error:  # a build for another torch fails while it registers its operators
        raise UserError(
            f"torchvision cannot be imported ({str(error).splitlines()[0]}); install the one that goes with "
            f"torch {torch.__version__}"
        ) from error
    network = inception_v3(weights=None, aux_logits=False, init_weights=False)
    setattr(network, "fc", nn.Identity())  # noqa: B010
    return network


def _reset_norms(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def _read_weights(weights: str) -> Any:
    if weights == "imagenet":
        from torchvision.models import Inception_V3_Weights

        chosen = Inception_V3_Weights.IMAGENET1K_V1
        try:
            return chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: the file is not the one that its name's hash tells
            raise UserError(
                f"weights=imagenet could not be downloaded ({error}); fetch {chosen.url} elsewhere and use "
                "weights=<its path>"
            ) from error
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserError(f"weights={weights} is no file; use imagenet, random or the path of a .pth or .safetensors")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile, pickle and safetensors each have errors of their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"weights={weights} cannot be read ({reason}); save a state_dict with torch.save, or as .safetensors"
        ) from error


def _mismatch(state: Any, wanted: Mapping[str, Tensor]) -> str:
    """What is wrong with the first tensor that is, or nothing."""
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        return f"a {type(state).__name__} is not names and tensors"
    for name, tensor in wanted.items():
        # Counters of batches came later than the first files.
        if name not in state and not name.endswith("num_batches_tracked"):
            return f"{name} is missing"
        if name in state and getattr(state[name], "shape", None) != tensor.shape:
            return f"{name} has shape {tuple(getattr(state[name], 'shape', ()))} instead of {tuple(tensor.shape)}"
    unknown = sorted(name for name in state.keys() - wanted.keys() if not name.startswith(BESIDE))
    return f"{unknown[0]} is unknown" if unknown else ""


def _folder(cache: str | Path | None) -> Path:
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "ssl_dgm" / "features"
    folder = Path(cache or default).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"cache={folder} cannot be written to ({error.strerror}); choose another folder") from error
    return folder


def _named(rows: np.ndarray, image: Image, weights: str, scaling: str) -> str:
    """A hash of all that the features depend on."""
    from torchvision import __version__ as version

    path = Path(weights).expanduser()
    which = sha256_of(path) if weights not in ("imagenet", "random") and path.is_file() else weights
    facts = repr((rows.shape, str(rows.dtype), tuple(image), which, scaling, version))
    return hashlib.sha256(facts.encode() + np.ascontiguousarray(rows).data).hexdigest()[:32]


def _read(path: Path, num_rows: int) -> np.ndarray | None:
    """The features of a cached file; None where there is none, or it is not what was written."""
    try:
        content = path.read_bytes()
        found = np.load(io.BytesIO(content), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = isinstance(found, np.ndarray) and found.shape == (num_rows, NUM_FEATURES) and found.dtype == np.float32
    return found if whole and content.endswith(_digest(found)) else None


def _write(path: Path, features: np.ndarray) -> None:
    with open(path, "wb") as file:  # np.save would add .npy to the temporary name
        np.save(file, features, allow_pickle=False)
        file.write(_digest(features))  # behind the array, where np.load does not look


def _digest(features: np.ndarray) -> bytes:
    return hashlib.sha256(features.tobytes()).digest()
