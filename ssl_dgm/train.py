"""python -m ssl_dgm.train: trains what the settings name, and says what came out."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ssl_dgm import checks
from ssl_dgm import config as schema
from ssl_dgm.config import Config, ModelConfig, NetworkConfig, UserError
from ssl_dgm.data import sources

if TYPE_CHECKING:
    from ssl_dgm.training.jobs import Result

HELP = """\
Trains a model on few labels and many unlabelled rows, and prints its test error beside a supervised network's.

  python -m ssl_dgm.train                                            M1+M2 on scikit-learn's digits, 100 labels
  python -m ssl_dgm.train model=m1m2 data=mnist labels=100 seeds=[0,1,2]
  python -m ssl_dgm.train model=m1 classifier=svm data=fashion_mnist labels=1000 features=sample
  python -m ssl_dgm.train model=m2 data=mnist budget=paper time_limit=9m
  python -m ssl_dgm.train experiment=kingma2014_code_m1m2 data=mnist
  python -m ssl_dgm.train model=m2 objective.classification=1 optimizer.lr=1e-3 --cfg job

Choices
  model       m1 (with classifier=logistic|svm|knn|none), m2, m1m2, nn (supervised network)
  data        digits (embedded), mnist, fashion_mnist (from the folder SSL_DGM_DATA, or downloaded)
  budget      paper (the paper's text), short (a laptop's CPU), smoke (seconds)
  labels      how many labelled rows, balanced over the classes
  seeds       [0,1,2]: replicas trained together; each draws its own labels unless split_seed is a number
  device      auto, cpu, cuda, cuda:1, ...
  time_limit  90s, 9m, 1.5h: stops in time with a checkpoint; the same command continues

Runs are kept in runs/<model>-<data>-<labels>-<budget>-<hash>/; what is finished is not trained again (force=true does).
--cfg job prints every setting with its value; any of them can stand on the command line.
"""


def config_folder() -> str:
    """conf/ inside the package of a wheel, else beside the package of a checkout."""
    inside = Path(__file__).parent / "conf"
    return str(inside if inside.is_dir() else Path(__file__).parent.parent / "conf")


def choices() -> dict[str, list[str]]:
    """Options of every group of conf/."""
    found: dict[str, list[str]] = {}
    for path in sorted(Path(config_folder()).glob("*/*.yaml")):
        found.setdefault(path.parent.name, []).append(path.stem)
    return found


ConfigStore.instance().store(name="schema", node=Config)


def say(line: str) -> None:
    """A line on the screen, at once."""
    print(line, flush=True)


def baseline_of(config: Config) -> Config | None:
    """The supervised network on the same labels that stands beside a model; None where it would say nothing."""
    if config.baseline is None or schema.is_estimator(config) or not schema.needs_labels(config):
        return None
    return dataclasses.replace(
        config, model=ModelConfig(name=config.baseline), network=NetworkConfig(), m1=None, baseline=None
    )


@hydra.main(config_path=config_folder(), config_name="config", version_base="1.3")
def _main(composed: DictConfig) -> None:
    # An exit is no exception to Hydra, which would print a traceback for one.
    try:
        sys.exit(_train(checks.from_composed(composed), HydraConfig.get().overrides.task))
    except UserError as error:
        sys.exit(_refuse(str(error)))


def _train(config: Config, overrides: list[str]) -> int:
    sources.check_available(config.data.name)
    from ssl_dgm.tables import collect
    from ssl_dgm.training.fit import Stopped
    from ssl_dgm.training.run import run

    command = " ".join(["python -m ssl_dgm.train", *overrides])
    try:
        results = [run(config, say, command)]
        if (beside := baseline_of(config)) is not None:
            results.append(run(beside, lambda line: None, command))
    except Stopped as stopped:
        say(str(stopped))
        return 0
    main, *others = results
    csv = Path(config.csv or f"{config.runs}/rows.csv")
    shown = [result for result in (main.first, main, *others) if result is not None]
    collect.append(csv, [row for result in shown for r in result.records.values() for row in collect.rows(r)], say)
    say(f"\n{_summary(shown)}\n")
    say(f"records   {main.folder}/seed-*/result.json\nrows      {csv}")
    for picture in main.pictures:
        say(f"picture   {picture}")
    for seed, reason in main.lost.items():
        say(f"seed {seed} has no result: {reason}")
    return 1 if main.lost else 0


def _summary(results: list["Result"]) -> str:
    """The closing table: every test metric of every model."""
    from ssl_dgm.tables import render

    lines = []
    for result in results:
        kept = [record["metrics"] for record in result.records.values()]
        shown = [name for name in (kept[0] if kept else {}) if name.startswith(("test", "live"))]
        lines += [(result.name, name, [metrics[name] for metrics in kept]) for name in shown]
    return render.closing_table(lines)


def main() -> None:
    """Runs the command line: exit code 0 when all went well, 1 when a seed was lost, 2 for a usage error."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(HELP)
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        checks.check_keys(sys.argv[1:])
        _main()
    except UserError as error:
        sys.exit(_refuse(str(error)))
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(_refuse(checks.explain(str(error.__cause__ or error), choices())))


def _refuse(sentence: str) -> int:
    print(f"ssl_dgm: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
