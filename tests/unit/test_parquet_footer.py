"""The sizes of row groups are read from a footer, and a damaged footer is an error of one kind."""

import contextlib
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark.ingestion import formats
from earmark.ingestion.errors import DamagedFileError
from earmark.ingestion.formats import Shape, read_blocks, read_head
from earmark.ingestion.parquet_footer import largest_row_group


def make(path: Path, rows: int, group: int) -> Path:
    frame = pl.DataFrame({"a": list(range(rows)), "b": [f"text {at}" for at in range(rows)], "c": [[1]] * rows})
    frame.write_parquet(path, row_group_size=group, compression="uncompressed")
    return path


@pytest.mark.parametrize("groups", [1, 2, 20])
def test_the_largest_row_group_is_the_files_share_of_it(tmp_path: Path, groups: int):
    path = make(tmp_path / "a.parquet", 10_000, 10_000 // groups)
    share = path.stat().st_size / groups
    assert 0.7 * share < largest_row_group(path) < 1.1 * share


def test_a_large_row_group_is_refused_and_small_ones_of_the_same_rows_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(formats, "MAX_ROW_GROUP", 50_000)
    good, bad = make(tmp_path / "good.parquet", 10_000, 500), make(tmp_path / "bad.parquet", 10_000, 10_000)
    blocks = read_blocks(good, read_head(good, "good"), Shape.RECORDS)
    assert sum(block.rows.height for block in blocks) == 10_000
    with pytest.raises(DamagedFileError, match=r"bad: has a row group of .* smaller row groups"):
        list(read_blocks(bad, read_head(bad, "bad"), Shape.RECORDS))


@given(data=st.binary(max_size=60))
def test_a_damaged_footer_is_a_value_error(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.getbasetemp() / "damaged.parquet"
    path.write_bytes(b"PAR1" + data + len(data).to_bytes(4, "little") + b"PAR1")
    with contextlib.suppress(ValueError):
        assert largest_row_group(path) >= 0
