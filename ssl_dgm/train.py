"""python -m ssl_dgm.train: trains what the settings name, and says what came out."""

import contextlib
import dataclasses
import os
import shlex
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ssl_dgm import checks, records
from ssl_dgm import compose as composing
from ssl_dgm import config as schema
from ssl_dgm.config import Config, EstimatorConfig, ModelConfig, NetworkConfig, Stopped, UserError
from ssl_dgm.data import sources
from ssl_dgm.files import speak_plainly

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
  python -m ssl_dgm.train -m model=m2,m1m2 labels=100,600 seeds=[0,1,2]   a sweep

Choices
  model       m1 (with classifier=logistic|svm|tsvm|knn|...|none), m2, m1m2, avae, adgm, sdgm, gmdgm, gmvae, cvae;
              nn, knn, svm, cnn, inception on the labelled rows alone; tsvm, cae, mtc, label_spreading, self_training
  data        digits (embedded), mnist, fashion_mnist, svhn, cifar10, cifar100 (from the folder SSL_DGM_DATA, or
              downloaded), norb, frey, lfw (from that folder),
              mnist_semi_unsupervised (3 to 7 have no labels), memmap (shards larger than memory in data.folder);
              of your own: npz (data.file=my.npz), folder (of pictures, data.folder=...), csv (data.file, data.target)
  budget      paper (the paper's text), short (a laptop's CPU), smoke (seconds)
  labels      how many labelled rows, balanced over the labelled classes; all of them; 0: y is a cluster
  seeds       [0,1,2]: replicas trained together; each draws its own labels unless split_seed is a number
  device      auto, cpu, cuda, cuda:1, ...
  logger      csv, wandb (offline without an account), tensorboard
  time_limit  90s, 9m, 1.5h: stops in time with a checkpoint; the same command continues

Whole tables: python -m ssl_dgm.table --help. Finished runs: python -m ssl_dgm.runs --help.
Runs are kept in runs/<model>-<data>-<labels>-<budget>-<hash>/; what is finished is not trained again (force=true does).
--cfg job prints every setting with its value; any of them can stand on the command line.
"""


class JobFailed(Exception):
    """A job of a sweep failed; the others are carried out all the same."""


def say(line: str) -> None:
    """A line on the screen, at once."""
    print(line, flush=True)


def baseline_of(config: Config) -> Config | None:
    """The supervised network on the same labels that stands beside a model; None where it would say nothing."""
    if config.baseline is None or schema.is_estimator(config) or not schema.needs_labels(config) or not config.labels:
        return None
    return dataclasses.replace(
        config,
        model=ModelConfig(name=config.baseline),
        network=NetworkConfig(),
        estimator=EstimatorConfig(),
        m1=None,
        baseline=None,
    )


@hydra.main(config_path=str(composing.config_folder()), config_name="config", version_base="1.3")
def _main(composed: DictConfig) -> None:
    about = HydraConfig.get()
    if about.mode == RunMode.MULTIRUN:
        return _job_of_a_sweep(composed, about.overrides.task)
    # An exit is no exception to Hydra, which would print a traceback for one.
    try:
        sys.exit(_train(_config(composed), about.overrides.task))
    except UserError as error:
        sys.exit(_refuse(str(error)))
    except Stopped as stopped:
        say(str(stopped))
        sys.exit(0)


def _job_of_a_sweep(composed: DictConfig, overrides: list[str]) -> None:
    """One job: what fails is told and kept in the run's folder, and the next job begins.

    Raises:
        JobFailed: at the job's end; Hydra raises it again when all jobs are through.
        KeyboardInterrupt: when a signal ended the training, which ends the sweep.
    """
    words = " ".join(overrides)
    say(f"\n--- {words or 'the defaults'}")
    try:
        config = _config(composed)
        code, reason = _train(config, overrides), "a seed has no result"
    except Stopped as stopped:
        say(str(stopped))
        if stopped.by_signal:
            raise KeyboardInterrupt from stopped
        return
    except UserError as error:
        code, reason = 2, str(error)
        _keep_refusal(composed, overrides, reason)
    except Exception as error:
        code, reason = 1, f"{type(error).__name__}: {error}"
        traceback.print_exc()
    if code:
        sentence = f"the job '{words}' failed: {reason}"
        _refuse(sentence)
        raise JobFailed(sentence)


def _config(composed: DictConfig) -> Config:
    about = HydraConfig.get()
    config = composing.from_composed(composed, about.overrides.task)
    if config.logger.group is None:
        config.logger.group = about.runtime.choices.get("experiment")
    return config


def _keep_refusal(composed: DictConfig, overrides: list[str], reason: str) -> None:
    """Settings that were refused before their folder existed leave the reason there, for whoever looks for the job."""
    with contextlib.suppress(UserError):
        config = composing.from_composed(composed, overrides)
        folder = Path(config.runs) / schema.key(config, sources.load(config.data).sha256)
        # The key of a published split is not known before the manifest is read, which may be what was refused.
        if config.split.file is None and not (folder / "failed.json").exists():
            records.fail(folder, reason)


def _train(config: Config, overrides: list[str]) -> int:
    sources.check_available(config.data)
    from ssl_dgm.tables import collect
    from ssl_dgm.training.run import run

    command = shlex.join(["python", "-m", "ssl_dgm.train", *overrides])
    csv = Path(config.csv or f"{config.runs}/rows.csv")
    collect.check_ours(csv)
    shown: list[Result] = []

    def finished(result: "Result") -> None:
        shown.append(result)
        collect.append(csv, [row for record in result.records.values() for row in collect.rows(record)], say)

    main = run(config, say, command)
    if main.first is not None:
        finished(main.first)
    finished(main)
    if (beside := baseline_of(config)) is not None:
        finished(run(beside, lambda line: None, command))
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
    speak_plainly()
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(HELP)
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        checks.check_keys(sys.argv[1:])
        if {"-m", "--multirun"} & set(sys.argv[1:]):
            checks.check_sweep(sys.argv[1:], os.environ)
            checks.check_launcher(sys.argv[1:])
        sys.argv[1:] = checks.quoted(sys.argv[1:])
        _main()
    except UserError as error:
        sys.exit(_refuse(str(error)))
    except JobFailed:
        print("ssl_dgm: a job of the sweep failed, as told above; the others were carried out", file=sys.stderr)
        sys.exit(1)
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(_refuse(str(composing.explained(error))))
    except KeyboardInterrupt:
        print("ssl_dgm: interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)


def _refuse(sentence: str) -> int:
    print(f"ssl_dgm: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    # The launchers of sweeps send a job to other processes by its name, which __main__ would not have there.
    from ssl_dgm import train

    train.main()
