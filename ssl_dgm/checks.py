"""Words, settings and values that are wrong, and the sentences that say so: nothing here imports torch."""

import dataclasses
import difflib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence

from ssl_dgm.config import Config, Stage, UserError, flatten

# What pip install '.[...]' calls them.
EXTRAS = {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm", "ray": "ray"}
# Settings whose values are free text: paths, and names that people give.
TEXTS = (
    "data.file", "data.test_file", "data.folder", "data.title", "data.target", "runs", "csv", "split.file",
    "estimator.weights", "logger.group", "logger.project",
)  # fmt: skip


def valid_keys(schema: type = Config, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the schema, groups included."""
    for f in dataclasses.fields(schema):
        yield prefix + f.name
        nested = Stage if f.name == "m1" else f.type
        if dataclasses.is_dataclass(nested) and isinstance(nested, type):
            yield from valid_keys(nested, f"{prefix}{f.name}.")


def nearest(word: str, known: list[str]) -> str:
    """'; the nearest is ...' or a list of what there is."""
    close = [name for name in known if word and name.startswith(word)]
    close += difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"the nearest is {close[0]}" if close else f"there are {', '.join(sorted(known))}"


def check_keys(overrides: list[str]) -> None:
    """Refuses a key that the schema does not have, naming the nearest one; Hydra's own flags and keys pass.

    Raises:
        UserError: for the first unknown key of the `key=value` words, and for what is no word at all.
    """
    if stray := [word for word in overrides if not isinstance(word, str)]:
        kind = type(stray[0]).__name__
        raise UserError(f"settings are words like 'model=m2', not {kind}; give arrays by name: x=..., y=...")
    known = list(valid_keys())
    for before, word in zip(("", *overrides), overrides):
        key, sign, _ = word.partition("=")
        key = key.lstrip("+~").partition("@")[0]
        if word.startswith(("-", "~")) or before.startswith("-") or key.startswith("hydra"):
            continue
        if key == "data.order" and "by_class" in word:
            raise UserError(
                f"{word} leaks which unlabelled rows are of one class; leave it out, or use "
                "experiment=maaloe2015_by_class, which shows what the leak is worth"
            )
        if not sign:
            raise UserError(f"'{word}' is not a key=value pair; write for example labels=100")
        if key == "experiment" or key in known:
            continue
        tails = [k for k in known if k.rpartition(".")[2] == key.rpartition(".")[2]]
        hint = f"write {tails[0]}" if tails else nearest(key, known)
        raise UserError(f"'{key}' is not a setting; {hint}")


def check_budget(words: Sequence[str], name: str) -> None:
    """Refuses a budget=... that an experiment composed after it has overruled.

    Args:
        name: budget.name, as it came out.
    """
    chosen = {key: value for key, sign, value in (word.partition("=") for word in words) if sign}
    if (budget := chosen.get("budget", name)) != name and "experiment" in chosen:
        raise UserError(
            f"budget={budget} is overruled by experiment={chosen['experiment']}, whose lengths are of budget={name}; "
            "leave it out, and write budget.epochs=... for another length"
        )


def quoted(words: list[str]) -> list[str]:
    """The same words, with paths and titles in the quotes that Hydra's grammar asks for and a shell has taken away.

    In a sweep, values with a comma stay as they are: they are several.
    """
    sweeps, made = bool({"-m", "--multirun"} & set(words)), []
    for word in words:
        key, _, value = word.partition("=")
        special = key in TEXTS and re.search(r"[^\w\s/.:@%+\-\\]|[^\x00-\x7f]", value)
        if special and not value.startswith(("'", '"')) and not (sweeps and "," in value):
            word = f"{key}='{value}'" if "'" not in value else f'{key}="{value}"'
        made.append(word)
    return made


def explain(message: str, choices: dict[str, list[str]]) -> str:
    """One sentence for an error that Hydra or OmegaConf raised while composing.

    Args:
        message: theirs.
        choices: options of every group of conf/.
    """
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    where = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
    if match := re.match(r"(?:In '.*': )?Could not find '(.+)/(.+)'", lines[0]):
        group = match[1].partition("/")[0]
        # A budget is found by its own name and by that of the model it is for.
        option = match[1].partition("/")[2] or match[2]
        if group in choices:
            return f"{group}={option} is unknown; {nearest(option, choices[group])}"
        if match[1] == "hydra/launcher" and match[2] in EXTRAS:
            return f"hydra/launcher={match[2]} is not installed here; pip install '.[{EXTRAS[match[2]]}]'"
    not_converted = r"Value '(.*)' of type '.*?' could not be converted to (\w+)"
    if match := re.match(rf"{not_converted}|Value '(.*)' is not a valid (bool)", lines[0]):
        value, kind = match[1] or match[3], match[2] or match[4]
        words = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}
        return f"{where}={value} is not {words.get(kind, kind)}; use for example {example(where)}"
    if match := re.match(r"Value '(.*)' of type '.*?' is incompatible with type hint", lines[0]):
        return f"{where}={match[1]} is of the wrong kind; use for example {example(where)}"
    if lines[0].startswith("Invalid value assigned") or lines[0].endswith("is not Optional"):
        return f"{where} has a value of the wrong kind; use for example {example(where)}"
    if match := re.match(r"Ambiguous value for argument '(.+?)'", lines[0]):
        key, _, values = match[1].partition("=")
        return f"{key}={values} are several values; add -m to sweep over them, or write {key}=[{values}] for a list"
    if where.startswith("hydra."):
        return f"'{where}' is not a setting of Hydra here; write +{where}=... to add it"
    if match := re.match(r"Key '(.*)' (?:is )?not in", lines[0]):
        return f"'{where or match[1]}' is not a setting; {nearest(where or match[1], list(valid_keys()))}"
    return lines[0].rstrip(".") + (f" ({where})" if where else "") + "; see --help"


def check_launcher(overrides: list[str]) -> None:
    """Refuses to submit jobs where there is no Slurm to take them.

    Raises:
        UserError: then.
    """
    if "hydra/launcher=submitit_slurm" in overrides and shutil.which("srun") is None:
        raise UserError(
            "hydra/launcher=submitit_slurm submits jobs with srun, which is not on this machine; use "
            "hydra/launcher=submitit_local, or joblib"
        )


def check_sweep(overrides: list[str], environment: Mapping[str, str]) -> None:
    """Refuses a sweep whose jobs would each start processes on several devices.

    Raises:
        UserError: a job of a sweep is one process, of which a launcher runs so many as there are devices.
    """
    asked = next(
        (word for word in overrides if word.startswith("trainer.devices=") and word != "trainer.devices=1"), ""
    )
    world = environment.get("WORLD_SIZE", "1")
    asked = asked or (f"WORLD_SIZE={world}" if world not in ("", "1") else "")
    if asked:
        raise UserError(
            f"{asked} asks for several processes in every job of a sweep, whose jobs would want the same devices; "
            "leave it out, and give each device a job of its own (hydra/launcher=joblib or submitit_slurm)"
        )


def example(key: str) -> str:
    """'key=value' with the default, or with 1 where that is null, and a list where classes are listed."""
    stem = key.partition("[")[0]
    if stem in ("classes.labelled", "classes.hidden"):
        return f"{stem}=[0,1]"
    default = dict(flatten(dataclasses.asdict(Config()))).get(stem.removeprefix("m1."))
    value = 1 if default is None else str(default).lower() if isinstance(default, bool) else default
    return f"{stem}={value}"


def seconds(duration: str) -> float:
    """'90s', '9m', '1.5h' or a bare number of seconds, as seconds.

    Raises:
        UserError: for anything else, or for no time at all.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(duration).strip())
    if not match or float(match[1]) == 0:
        raise UserError(f"time_limit={duration} is no duration; write 90s, 9m or 1.5h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
