"""Rows that are given to a trained model."""

import numpy as np
import pandas as pd
import pytest
from own_files import put_csv

from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data import sources
from ssl_dgm.data.given import rows_of
from ssl_dgm.data.source import Source


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    path = put_csv(tmp_path_factory.mktemp("data") / "my.csv")
    return sources.load(DataConfig("csv", file=str(path), target="label"))


def test_rows_in_units_of_their_own_are_standardised_and_columns_found_by_name(source: Source) -> None:
    own = source.to_images(source.test_x.astype(np.float64))
    np.testing.assert_allclose(rows_of(own, source), source.test_x, rtol=1e-4, atol=1e-5)
    frame = pd.DataFrame({"b": own[:, 1], "other": "text", "a": own[:, 0]})
    np.testing.assert_array_equal(rows_of(frame, source), rows_of(own, source))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (np.nan, "x has nan in row 1 .from 0., column b; fill it in"),
        (-np.inf, "x has -inf in row 1"),
        (1e300, r"x has 1e\+300 in row 1 .from 0., column b; too far from the training rows for 32 bits"),
    ],
)
def test_numbers_that_are_no_rows_are_named(value: float, sentence: str, source: Source) -> None:
    x = source.to_images(source.test_x.astype(np.float64))
    x[1, 1] = value
    with pytest.raises(UserError, match=sentence):
        rows_of(x, source)
