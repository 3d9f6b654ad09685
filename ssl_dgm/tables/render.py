"""Tables as text."""

import statistics
from collections.abc import Iterable, Sequence

from tabulate import tabulate


def mean_and_spread(values: Sequence[float], scale: float = 1.0, digits: int = 2) -> str:
    """'3.33 ± 0.14 (n = 10)': mean and standard deviation over seeds (ddof = 1)."""
    if not values:
        return "-"
    scaled = [scale * value for value in values]
    spread = f" ± {statistics.stdev(scaled):.{digits}f}" if len(scaled) > 1 else ""
    return f"{statistics.fmean(scaled):.{digits}f}{spread} (n = {len(scaled)})"


def closing_table(lines: Iterable[tuple[str, str, Sequence[float]]]) -> str:
    """The table at the end of a run: (model, metric, values of the seeds); errors become percentages."""
    cells = []
    for model, metric, values in lines:
        is_error = metric.endswith("error")
        name = metric.replace("/", " ").replace("_", " ") + (
            " (%)" if is_error else " (nats)" if metric != "live_units" else ""
        )
        cells.append((model, name, mean_and_spread(values, 100 if is_error else 1)))
    return tabulate(cells, headers=("model", "metric", "mean ± sd over seeds"), tablefmt="simple")
