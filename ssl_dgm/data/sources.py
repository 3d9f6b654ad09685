"""Data sets by their names on the command line: one module reads the files of each.

A reader is a module with `check`, which finds out in no time whether its files are there, and `read`.
"""

from types import ModuleType

from ssl_dgm.checks import nearest
from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data import idx, memmap, toy
from ssl_dgm.data.source import Source

READERS: dict[str, ModuleType] = {"digits": toy, "mnist": idx, "fashion_mnist": idx, "memmap": memmap}
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
    return _reader(data).read(_settings(data))


def digest_of(data: DataConfig | str) -> str:
    """The sha256 that the data set has.

    Raises:
        UserError: as `load`, for a data set whose content is not known beforehand.
    """
    name = _settings(data).name
    return DIGESTS[name] if name in DIGESTS else load(data).sha256


def check_available(data: DataConfig | str) -> None:
    """Nothing, once it is known that `load` finds its files or may download them; takes no time.

    Raises:
        UserError: for an unknown name, and for a missing file that will not be downloaded.
    """
    _reader(data).check(_settings(data))


def _settings(data: DataConfig | str) -> DataConfig:
    return DataConfig(name=data) if isinstance(data, str) else data


def _reader(data: DataConfig | str) -> ModuleType:
    name = _settings(data).name
    if name not in READERS:
        raise UserError(f"data={name} is unknown; {nearest(name, list(READERS))}")
    return READERS[name]
