"""Data sets by their names on the command line: one module reads the files of each.

A reader is a module with `check`, which finds out in no time whether its files are there, and `read`. One whose data
have no digest that is known beforehand may have `files`, the paths that `read` reads.
"""

import dataclasses
import re
from pathlib import Path
from types import ModuleType

from ssl_dgm.checks import nearest
from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data import cifar, faces, idx, image_folder, memmap, norb, npz, own, published, svhn, tabular, toy
from ssl_dgm.data.source import Source

READERS: dict[str, ModuleType] = {
    "digits": toy, "mnist": idx, "fashion_mnist": idx, "memmap": memmap, "svhn": svhn, "cifar10": cifar,
    "cifar100": cifar, "norb": norb, "frey": faces, "lfw": faces, "npz": npz, "folder": image_folder, "csv": tabular,
}  # fmt: skip
DIGESTS = {  # `Source.sha256`, so that a run can be named without reading its data
    "digits": "27d7a1a3500289df39c36ea48701b7ea3e2fe3be545a9a48e5c3ae2b0a32d97c",
    "mnist": "b9f950d800c28d3dc3100a63b214e9a410947ee0f1618d7371764cc22cfc95b2",
    "fashion_mnist": "c86e615d8f0aa1d120dbdcca957e44a25342249a4dbbbb7fde7ed3ce1c060f29",
}


def load(data: DataConfig | str) -> Source:
    """The data set that the settings name; a name alone stands for it with the default settings.

    Raises:
        UserError: for an unknown name, and for a missing, damaged or undownloadable file.
    """
    check_available(data)
    settings = _settings(data)
    source = _reader(data).read(settings).first_rows(settings.train_rows)
    return source if settings.title is None else dataclasses.replace(source, name=settings.title)


def preprocessed(source: Source, data: DataConfig) -> Source:
    """What models see of a data set: without constant pixels, or whitened, as the settings ask.

    Raises:
        UserError: when no pixel would be left, or there are too few components.
    """
    if data.min_pixel_sd:
        source = source.drop_constant_pixels(data.min_pixel_sd)
    return source if data.pca is None else source.whiten(data.pca)


def digest_of(data: DataConfig | str) -> str:
    """The sha256 that the data set has; one that has to be computed is remembered for as long as its files stay.

    Raises:
        UserError: as `load`, for a data set whose content is not known beforehand.
    """
    settings, reader = _settings(data), _reader(data)
    if settings.name in DIGESTS:
        return DIGESTS[settings.name]
    if not hasattr(reader, "files"):
        return load(data).sha256
    check_available(data)
    read = [*reader.files(settings), Path(reader.__file__ or "")]  # what the reader does with them may change too
    about = ["data", dataclasses.asdict(settings), *(published.stamp(path) for path in read if path.is_file())]
    return published.remembered(about, lambda: load(data).sha256)


def is_here(data: DataConfig | str) -> bool:
    """Whether nothing has to be downloaded to know the data set's sha256, once `check_available` has nothing to say."""
    settings, reader = _settings(data), _reader(data)
    return settings.name in DIGESTS or all(path.is_file() for path in getattr(reader, "files", lambda _: [])(settings))


def check_available(data: DataConfig | str) -> None:
    """Nothing, once it is known that `load` finds its files or may download them; takes no time.

    Raises:
        UserError: for an unknown name, and for a missing file that will not be downloaded.
    """
    _check_title(_settings(data))
    _reader(data).check(_settings(data))


def located(data: DataConfig) -> DataConfig:
    """The same with whole paths, by which the files are found from anywhere later."""
    whole = {name: str(own.find(data, name)) for name in ("file", "test_file") if getattr(data, name) is not None}
    if data.folder is not None:
        whole["folder"] = str(Path(data.folder).expanduser().absolute())
    return dataclasses.replace(data, **whole)


def _check_title(data: DataConfig) -> None:
    published = {_letters(name): name for name in READERS}
    if data.title is not None and (known := published.get(_letters(data.title))):
        raise UserError(f"data.title={data.title} is what data={known} is called; use words that tell the two apart")


def _letters(title: str) -> str:
    return re.sub(r"[\W_]", "", title).lower()


def _settings(data: DataConfig | str) -> DataConfig:
    return DataConfig(name=data) if isinstance(data, str) else data


def _reader(data: DataConfig | str) -> ModuleType:
    name = _settings(data).name
    if name not in READERS:
        raise UserError(f"data={name} is unknown; {nearest(name, list(READERS))}")
    return READERS[name]
