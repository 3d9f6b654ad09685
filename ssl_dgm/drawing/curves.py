"""Learning curves: what a run's metrics.csv says, a band over seeds."""

import numpy as np

from ssl_dgm.drawing.style import BLUE, COLUMN, GREY, Drawn, new
from ssl_dgm.drawing.trained import Trained
from ssl_dgm.records import read_curves

SHOWN = ("validation/error", "validation/bound", "train/bound_unlabelled", "train/bound")


def curves(t: Trained) -> Drawn | None:
    """Errors and bounds over the epochs, of all seeds."""
    rows = [row for path in sorted(t.folder.glob("group-*/metrics.csv")) for row in read_curves(path)]
    if not rows:
        return None
    wanted = [name for name in SHOWN if name in rows[0]]
    figure, axes = new(COLUMN, 1.8 * len(wanted), len(wanted))
    seeds = sorted({row["seed"] for row in rows})
    for panel, name in zip(axes[:, 0], wanted):
        scale = 100 if name.endswith("error") else 1
        by_epoch: dict[int, list[float]] = {}
        for seed in seeds:
            own = [row for row in rows if row["seed"] == seed and row[name] != "" and np.isfinite(row[name])]
            points = [(row["epoch"], scale * row[name]) for row in own]
            panel.plot([e for e, _ in points], [v for _, v in points], color=GREY, linewidth=0.8)
            for epoch, value in points:
                by_epoch.setdefault(epoch, []).append(value)
        epochs = sorted(by_epoch)
        mean = [float(np.mean(by_epoch[epoch])) for epoch in epochs]
        label = f"mean of {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
        panel.plot(epochs, mean, color=BLUE, label=label)
        panel.set_xlabel("epoch")
        panel.set_ylabel(name.replace("/", " ").replace("_", " ") + (" (%)" if scale == 100 else " (nats)"))
        if name.endswith("error"):
            panel.set_ylim(bottom=0)
        elif len(mean) > 4:
            # The first epochs' bounds would squeeze the rest of the curve into a line.
            panel.set_ylim(bottom=float(np.quantile(mean, 0.05)) - 1, top=max(mean) + 1)
        panel.legend()
    axes[0, 0].set_title(t.name)
    return Drawn(figure, f"Learning curves of {len(seeds)} seeds. {t.origin}")
