"""Pictures of a run: samples of its first seed, and the learning curves of all."""

import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ssl_dgm.files import write_atomic
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability import bounds
from ssl_dgm.probability.factors import Part
from ssl_dgm.probability.generation import generate
from ssl_dgm.probability.randomness import Streams
from ssl_dgm.records import read_curves

LEGIBLE = 400  # cells of a confusion matrix, beyond which numbers would run into each other
STYLES = 8  # rows of a class-conditional grid, draws of the latents that all classes share


@torch.no_grad()
def samples(model: DeepGenerativeModel, first: tuple[DeepGenerativeModel, Tensor] | None = None) -> Tensor:
    """Mean images of the first seed, [rows, columns, D]: columns are classes, or more draws for a model without y.

    Args:
        first: as in `draw`.
    """
    streams = Streams(model.seeds, "samples", model.device)
    if not model.has_classes:
        return draw(model, first, STYLES * STYLES, None, streams).view(STYLES, STYLES, -1)
    y = bounds.classes(model.factorisation, next(model.parameters()))
    return draw(model, first, STYLES, y, streams).transpose(0, 1)


@torch.no_grad()
def completions(model: DeepGenerativeModel, x: Tensor) -> Tensor:
    """Of every row x [R, D]: itself, what of it is given, and mean images that complete it, [R, 2 + STYLES, D].

    Of the first seed of a conditional model.
    """
    f = model.factorisation
    given = {name: f.q[name]({f.observed: x}) for name in f.conditions}
    part = torch.zeros_like(x)
    for name in f.conditions:
        part[:, cast(Part, f.q[name]).index] = cast(Tensor, given[name])
    noise = model.noise(Streams(model.seeds, "samples", model.device), x=f.noise_shapes(len(x), STYLES))["x"]
    completed = model.per_seed(lambda one: generate(f, None, one, given), noise)[0, :, 0]  # [STYLES, R, D]
    return torch.cat([x[:, None], part[:, None], completed.transpose(0, 1)], 1)


def draw(
    model: DeepGenerativeModel,
    first: tuple[DeepGenerativeModel, Tensor] | None,
    rows: int,
    y: Tensor | None,
    streams: Streams,
) -> Tensor:
    """Mean images of the first seed, [K or 1, rows, D].

    Args:
        first: the M1 and its live units [D] under a stacked model; units that were dropped take their prior mean, 0.
        y: one-hot classes, [K, 1, K] for all of them or [rows, K]; None for a model without y.
    """
    f = model.factorisation
    noise = model.noise(streams, x=f.noise_shapes(rows))["x"]
    x = model.per_seed(lambda one: generate(f, y, one), noise)[0, 0]  # [K or 1, rows, D]
    if first is not None:
        m1, live = first
        z1 = torch.zeros(*x.shape[:-1], len(live), device=x.device)
        z1[..., live] = x
        x = m1.per_seed(lambda: m1.factorisation.p["x"]({"z": z1}).mean)[0]
    return x


def save_samples(path: Path, images: np.ndarray, columns_are: str, title: str, headings: Sequence[str] = ()) -> None:
    """A grid of images [rows, columns, H, W], or [rows, columns, H, W, 3] in colour, in [0, 1].

    Args:
        columns_are: what the axis below says; '' for columns that mean nothing.
        headings: of the columns; their numbers by default.
    """
    import matplotlib.pyplot as plt

    rows, columns, height, width, *colours = images.shape
    images = images[..., 0] if colours == [1] else images.clip(0, 1)
    canvas = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, *images.shape[4:]), 0.5)
    for r in range(rows):
        for c in range(columns):
            top, left = r * (height + 1) + 1, c * (width + 1) + 1
            canvas[top : top + height, left : left + width] = images[r, c]
    figure, axes = plt.subplots(figsize=(0.55 * columns + 0.4, 0.55 * rows + 0.7), layout="constrained")
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.spines[:].set_visible(False)
    axes.set_yticks([])
    axes.set_xticks([])
    if columns_are:
        places = [c * (width + 1) + 1 + width / 2 for c in range(columns)]
        axes.set_xticks(places, list(headings) or [str(c) for c in range(columns)], fontsize=7 if headings else None)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_xlabel(columns_are, fontsize=8)
    axes.set_title(title, fontsize=10)
    _save(figure, path)


def confusion(path: Path, counts: np.ndarray, attributed: np.ndarray, labelled: Collection[int], title: str) -> None:
    """Rows of every true class by slot as shares of the class, slots ordered by the class they are attributed to.

    Args:
        counts: [C, K].
        attributed: class of every slot, -1 for none, [K].
        labelled: classes that had labelled rows.
    """
    import matplotlib.pyplot as plt

    num_classes, num_slots = counts.shape
    # Slots of no class come last.
    order = np.argsort(np.where(attributed < 0, num_classes, attributed), kind="stable")
    shares = (counts / counts.sum(1, keepdims=True).clip(1))[:, order]
    figure, axes = plt.subplots(figsize=(0.42 * num_slots + 1.6, 0.36 * num_classes + 1.5), layout="constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if counts.size <= LEGIBLE:
        for (c, k), share in np.ndenumerate(shares):
            text = "1" if share > 0.995 else f"{share:.2f}"[1:]
            if share >= 0.005:
                axes.text(k, c, text, ha="center", va="center", fontsize=7, color="white" if share > 0.6 else "black")
    of = attributed[order]
    axes.vlines(np.flatnonzero(np.diff(of)) + 0.5, -0.5, num_classes - 0.5, color="0.6", linewidth=0.8)
    axes.set_xticks(range(num_slots), [f"{k}\n{c if c >= 0 else '–'}" for k, c in zip(order, of)], fontsize=7)
    marks = {c: f"{c}  {'labelled' if c in labelled else 'hidden'}" if labelled else str(c) for c in range(num_classes)}
    axes.set_yticks(range(num_classes), list(marks.values()), fontsize=7)
    for label, c in zip(axes.get_yticklabels(), marks):
        label.set_color("#0072B2" if c in labelled else "#D55E00" if labelled else "black")
    axes.set_xlabel("slot of y, and under it the class that it is attributed to by the validation rows", fontsize=8)
    axes.set_ylabel("true class of test rows", fontsize=8)
    axes.tick_params(length=0)
    axes.set_title(title, fontsize=10)
    _save(figure, path)


def curves(folder: Path) -> None:
    """curves.png of a run: every seed thin, their mean thick, over epochs; nothing when there is no curve."""
    rows = [row for path in sorted(folder.glob("group-*/metrics.csv")) for row in read_curves(path)]
    if not rows:
        return
    import matplotlib.pyplot as plt

    wanted = [
        n for n in ("validation/error", "validation/bound", "train/bound_unlabelled", "train/bound") if n in rows[0]
    ]
    figure, axes = plt.subplots(1, len(wanted), figsize=(3.6 * len(wanted), 2.8), layout="constrained", squeeze=False)
    seeds = sorted({row["seed"] for row in rows})
    for panel, name in zip(axes[0], wanted):
        scale = 100 if name.endswith("error") else 1
        by_epoch: dict[int, list[float]] = {}
        for seed in seeds:
            own = [row for row in rows if row["seed"] == seed and row[name] != "" and np.isfinite(row[name])]
            points = [(row["epoch"], scale * row[name]) for row in own]
            panel.plot([e for e, _ in points], [v for _, v in points], color="0.65", linewidth=0.8)
            for epoch, value in points:
                by_epoch.setdefault(epoch, []).append(value)
        epochs = sorted(by_epoch)
        mean = [float(np.mean(by_epoch[epoch])) for epoch in epochs]
        label = f"mean of {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
        panel.plot(epochs, mean, color="#0072B2", linewidth=1.6, label=label)
        panel.set_xlabel("epoch", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.set_ylabel(name.replace("/", " ").replace("_", " ") + (" (%)" if scale == 100 else " (nats)"), fontsize=9)
        if name.endswith("error"):
            panel.set_ylim(bottom=0)
        elif len(mean) > 4:
            # The first epochs' bounds would squeeze the rest of the curve into a line.
            panel.set_ylim(bottom=float(np.quantile(mean, 0.05)) - 1, top=max(mean) + 1)
        panel.legend(frameon=False, fontsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    _save(figure, folder / "curves.png")


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=160, format="png")
    plt.close(figure)
    write_atomic(path, buffer.getvalue())
