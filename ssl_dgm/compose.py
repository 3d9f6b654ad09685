"""conf/ and the words of a command line to a checked configuration; only this room and the command know Hydra."""

import os
from collections.abc import Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_dgm import checks, rules
from ssl_dgm.config import Config, UserError


def config_folder() -> Path:
    """conf/ inside the package of a wheel, else beside the package of a checkout."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "conf"


def choices() -> dict[str, list[str]]:
    """Options of every group of conf/."""
    found: dict[str, list[str]] = {}
    for path in sorted(config_folder().glob("*/*.yaml")):
        found.setdefault(path.parent.name, []).append(path.stem)
    return found


def compose(overrides: Sequence[str]) -> Config:
    """The configuration that `python -m ssl_dgm.train` makes of these words.

    Raises:
        UserError: one sentence for an unknown key, a wrong value or a misspelt option.
    """
    checks.check_keys(list(overrides))
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # Inside a job of a sweep Hydra is at work already, and its state is not ours to clear.
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            return from_composed(hydra_compose("config", checks.quoted(list(overrides))), overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise explained(error) from error
    finally:
        GlobalHydra.instance().hydra = before


def explained(error: Exception) -> UserError:
    """Hydra's or OmegaConf's error as one sentence."""
    return UserError(checks.explain(str(error.__cause__ or error), choices()))


def from_composed(composed: DictConfig, overrides: Sequence[str]) -> Config:
    """The plain dataclass of a composed configuration, checked.

    Args:
        overrides: the words that it was composed with.
    """
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    checks.check_budget(overrides, config.budget.name)
    if config.model.name not in (models := choices()["model"]):
        raise UserError(f"model.name={config.model.name} is unknown; {checks.nearest(config.model.name, models)}")
    rules.check(config)
    return config


ConfigStore.instance().store(name="schema", node=Config)
