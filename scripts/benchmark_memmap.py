"""Measures memory and time of the first updates of a training, as data=memmap and data in memory take them.

    python scripts/benchmark_memmap.py [--updates 300] model=m2 data=memmap data.folder=FOLDER labels=100 ...

The words are those of `python -m ssl_dgm.train`; nothing is written. Prints the seconds from the start of the process's
main function to the end of the first update, the median time of an update after it, and VmRSS and VmHWM of /proc.
"""

import argparse
import time
import warnings
from pathlib import Path
from statistics import median

import pytorch_lightning as pl
import torch

from ssl_dgm.compose import compose
from ssl_dgm.data import sources, splits
from ssl_dgm.training.fit import find_device, keep_freed_memory
from ssl_dgm.training.jobs import Job, assembled
from ssl_dgm.training.precision import products


def memory(name: str) -> float:
    """A line of /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1000


class Clock(pl.Callback):
    """Notes the time at the end of every update."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.ends.append(time.perf_counter())


def main() -> None:
    """Trains for some updates and prints what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("words", nargs="+")
    arguments = parser.parse_args()
    started, before = time.perf_counter(), memory("VmRSS")
    keep_freed_memory()
    config = compose(arguments.words)
    source = sources.load(config.data)
    loaded = time.perf_counter() - started
    drawn = {seed: splits.draw(source, config.labels, seed, config.data.labelled_in_pool) for seed in config.seeds}
    device = find_device(config.device)
    job = Job(config, source, drawn, device, None, print, "", Path())
    model, data = assembled(job, config.seeds, device)
    clock = Clock()
    with warnings.catch_warnings(), products(config.budget.precision, device) as format_:
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_steps=arguments.updates, accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=[device.index] if device.type == "cuda" else 1,
            precision=format_,  # type: ignore[arg-type]
            callbacks=[clock], logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(model, data)
    times = [1e3 * (b - a) for a, b in zip(clock.ends, clock.ends[1:])]
    print(f"{source.describe()}\n{data.updates:,} updates an epoch, {data.labelled_per_step} labelled and")
    print(f"{data.unlabelled_per_step} unlabelled rows in each; {torch.get_num_threads()} threads, {device}")
    print(f"  data opened         {loaded:8.2f} s")
    print(f"  first update ended  {clock.ends[0] - started:8.2f} s")
    print(f"  median update       {median(times):8.2f} ms")
    print(f"  VmRSS before        {before:8.0f} MB\n  VmRSS               {memory('VmRSS'):8.0f} MB")
    print(f"  VmHWM               {memory('VmHWM'):8.0f} MB")


if __name__ == "__main__":
    main()
