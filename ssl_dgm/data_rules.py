"""What settings of data may not be, by themselves and together with others: refused without torch."""

from ssl_dgm.config import Config, DataConfig, Stage, UserError, needs_labels, stages

RESIZED = ("norb", "lfw", "folder")  # data sets that data.side is for
OWN = ("npz", "folder", "csv", "memmap")
# Settings that only some data have a use for.
USED_BY = {
    "folder": ("memmap", "folder", "lfw"), "file": ("npz", "csv"), "test_file": ("csv",), "target": ("csv",),
    "title": OWN, "validation": OWN,
}  # fmt: skip
LONGEST_TITLE = 80


def check(config: Config) -> None:
    """Refuses what these data have no use for.

    Raises:
        UserError: one sentence with the value and the remedy.
    """
    for prefix, stage in stages(config):
        _check_pixels(config, stage, prefix)
    _check_uses(config)
    _check_images(config)
    _check_train_rows(config)


def _check_uses(config: Config) -> None:
    """Refuses settings of other data than those that are named, and titles that no line of text could hold."""
    data = config.data
    for setting, users in USED_BY.items():
        value = getattr(data, setting)
        if value is not None and data.name not in users:
            use = " or ".join(f"data={user}" for user in users)
            raise UserError(f"data.{setting}={value} is for {use}, not for data={data.name}; {_instead(data, setting)}")
    title = data.title
    if title is not None and not (title.strip() and title.isprintable() and len(title) <= LONGEST_TITLE):
        raise UserError(f"data.title={title!r} is no title; use one line of at most {LONGEST_TITLE} characters")


def _instead(data: DataConfig, setting: str) -> str:
    """What to do with a setting that other data have."""
    other = {"file": "folder", "folder": "file"}.get(setting)
    if other is None:
        return "leave it out"
    if data.name in USED_BY[other]:
        return f"use data.{other}=..."
    where = "" if data.name == "digits" else f" (data={data.name} is looked for in the folder that SSL_DGM_DATA names)"
    return f"say which of those it is, or leave it out{where}"


def _check_images(config: Config) -> None:
    """Refuses what images are not resized or whitened by, and convolutions of what is no image any more."""
    data = config.data
    if data.side is not None and data.name not in RESIZED:
        raise UserError(
            f"data.side={data.side} resizes images of {', '.join(RESIZED)}, not of {data.name}; leave it out"
        )
    if not data.extra and data.name != "svhn":
        raise UserError(f"data.extra=false is of data=svhn, and data={data.name} has no extra rows; leave it out")
    if data.pca is None:
        return
    if data.min_pixel_sd > 0:
        both = f"data.pca={data.pca} with data.min_pixel_sd={data.min_pixel_sd}"
        raise UserError(f"{both} both leave out what doesn't vary; use data.min_pixel_sd=0")
    for prefix, stage in stages(config):
        if stage.network.name != "mlp":
            raise UserError(
                f"{prefix}network.name={stage.network.name} convolves images, and data.pca={data.pca} makes them "
                f"uncorrelated numbers without a place; use {prefix}network.name=mlp, or leave data.pca out"
            )


def _check_pixels(config: Config, stage: Stage, prefix: str) -> None:
    """Refuses convolutions where x is no image, and likelihoods that have nothing to be of."""
    kind, likelihood = stage.network.name, stage.model.likelihood
    if stage.model.mse_scale is not None and likelihood != "mse":
        scale = f"{prefix}model.mse_scale={stage.model.mse_scale}"
        raise UserError(
            f"{scale} has no use with {prefix}model.likelihood={likelihood}; add {prefix}model.likelihood=mse"
        )
    if config.m1 is not None and not prefix:
        where = f"has no use in stage 2 of {config.model.name}, which sees no pixels"
        if kind != "mlp":
            raise UserError(f"network.name={kind} {where}; use network=mlp, and network@m1.network={kind} for stage 1")
        if likelihood != "auto":
            raise UserError(f"model.likelihood={likelihood} {where}; use auto, and m1.model.likelihood={likelihood}")
        return
    if kind != "mlp" and (config.data.name == "digits" or config.data.min_pixel_sd > 0):
        small = config.data.name == "digits"
        why = (
            "whose 8 x 8 pixels are too few"
            if small
            else f"and data.min_pixel_sd={config.data.min_pixel_sd} drops pixels"
        )
        remedy = "use network=mlp, or data=mnist" if small else "use data.min_pixel_sd=0, or network=mlp"
        raise UserError(f"{prefix}network.name={kind} convolves images, {why}; {remedy}")
    if likelihood == "categorical" and config.data.pixels != "grey":
        raise UserError(
            f"{prefix}model.likelihood=categorical is of 256 grey levels, but data.pixels={config.data.pixels} makes "
            "pixels 0 or 1; add data.pixels=grey"
        )


def _check_train_rows(config: Config) -> None:
    """Refuses fewer training rows than labels, and where row numbers would come to mean other rows."""
    rows, data = config.data.train_rows, config.data
    if rows is not None and needs_labels(config) and config.labels != "all" and int(config.labels) > rows:
        raise UserError(f"labels={config.labels} is more than data.train_rows={rows}; use fewer labels, or more rows")
    for name, values, instead in (("name", OWN, "mnist"), ("pool", ("train+validation",), "train")):
        if rows is not None and (value := getattr(data, name)) in values:
            word = "data" if name == "name" else f"data.{name}"
            raise UserError(f"data.train_rows={rows} is not for {word}={value}; leave one out, or use {word}={instead}")
    for prefix, stage in stages(config):
        if stage.budget.passes > 1 and (data.name == "memmap" or data.order == "by_class"):
            what = f"data={data.name}" if data.name == "memmap" else f"data.order={data.order}"
            passes = f"{prefix}budget.passes={stage.budget.passes}"
            raise UserError(f"{passes} shuffles rows anew, and {what} does not; use 1")
