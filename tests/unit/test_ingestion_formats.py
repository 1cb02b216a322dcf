"""Bytes to rows: the same rows, lines and rejects whatever the compression and wherever a block ends."""

import gzip
import json
from datetime import datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import polars as pl
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from earmark.ingestion import formats
from earmark.ingestion.errors import DamagedFileError
from earmark.ingestion.formats import LINE, TEXT, Format, Shape, read_blocks, read_head


def write(folder: Path, data: bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def read(path: Path, shape: Shape = Shape.RECORDS, block_bytes: int = formats.BLOCK_BYTES):
    """Return all rows by line, and all rejects as (line, reason)."""
    rows: dict[int, dict[str, object]] = {}
    rejects = []
    for block in read_blocks(path, read_head(path, path.name), shape, block_bytes):
        for row in block.rows.iter_rows(named=True):
            line = row.pop(LINE)
            assert line not in rows
            rows[line] = {name: value for name, value in row.items() if value is not None}
            assert block.original(line)
        rejects += [(reject.line, reject.reason) for reject in block.rejects]
    return rows, sorted(rejects)


CSV = b'a,b,c\n1,"x,y",3\n\n4,"line one\n\nline ""two""",6\n7,8\n9,\xff,9\n10,11,12\n'
CSV_ROWS = {
    2: {"a": "1", "b": "x,y", "c": "3"},
    4: {"a": "4", "b": 'line one\n\nline "two"', "c": "6"},
    9: {"a": "10", "b": "11", "c": "12"},
}
CSV_REJECTS = [(7, "ragged"), (8, "not_utf8")]


@pytest.mark.parametrize("block_bytes", [1, 2, 7, 16, 1 << 20])
def test_csv_keeps_good_rows_and_their_lines(tmp_path: Path, block_bytes: int):
    assert read(write(tmp_path, CSV), block_bytes=block_bytes) == (CSV_ROWS, CSV_REJECTS)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, lambda data: data])
@pytest.mark.parametrize("name", ["file.csv", "file.csv.gz", "file.zst"])
def test_compression_is_found_by_content_not_by_name(tmp_path: Path, pack, name: str):
    assert read(write(tmp_path, pack(CSV), name)) == (CSV_ROWS, CSV_REJECTS)


def test_compressed_pieces_in_one_file_are_read_on(tmp_path: Path):
    whole = {2: {"a": "1"}, 3: {"a": "2"}}
    for pack in (gzip.compress, zstandard.compress):
        assert read(write(tmp_path, pack(b"a\n1\n") + pack(b"2\n")))[0] == whole


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
@pytest.mark.parametrize("damage", ["truncated", "corrupt"])
def test_a_damaged_stream_is_named(tmp_path: Path, pack, damage: str):
    lines = b"a\n" + b"".join(b"%d\n" % (at * 7919) for at in range(200_000))
    packed = pack(lines)
    if damage == "truncated":
        packed = packed[: len(packed) // 2]
    else:
        middle = len(packed) // 2
        packed = (
            packed[:middle] + bytes(byte ^ 0xFF for byte in packed[middle : middle + 64]) + packed[middle + 64 :]
        )
    path = write(tmp_path, packed, "log.gz")
    with pytest.raises(DamagedFileError, match=r"log\.gz.*damaged"):
        read(path)


@pytest.mark.parametrize("data", [b"PK\x03\x04....", b"BZh9....", "a,b\n1,2\n".encode("utf-32")])
def test_what_is_not_read_is_said(tmp_path: Path, data: bytes):
    with pytest.raises(DamagedFileError, match="which is not read"):
        read(write(tmp_path, data))


def test_a_stray_quote_does_not_swallow_good_rows(tmp_path: Path):
    data = b'a,b\n1,"open\n2,x\n3,y\n4,"ok"\n5,z\n'
    rows, rejects = read(write(tmp_path, data))
    assert list(rows) == [3, 4, 5, 6]
    assert rejects == [(2, "unclosed_quote")]


def test_an_unclosed_quote_at_the_end_is_one_reject(tmp_path: Path):
    assert read(write(tmp_path, b'a,b\n1,2\n3,"x'))[1] == [(3, "unclosed_quote")]


def test_quotes_within_a_field_are_literal(tmp_path: Path):
    rows, rejects = read(write(tmp_path, b'a,b\n1,say "hi"\n2,"x"y\n'))
    assert rows == {2: {"a": "1", "b": 'say "hi"'}, 3: {"a": "2", "b": "xy"}}
    assert rejects == []


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_line_ends_and_byte_order_mark(tmp_path: Path, newline: bytes):
    data = b"\xef\xbb\xbfa,b" + newline + b"1,2" + newline
    assert read(write(tmp_path, data))[0] == {2: {"a": "1", "b": "2"}}


def test_tabs_and_semicolons(tmp_path: Path):
    assert read(write(tmp_path, b"a\tb\n1\tx,y\n"))[0] == {2: {"a": "1", "b": "x,y"}}
    assert read(write(tmp_path, b"a;b\n1;2\n"))[0] == {2: {"a": "1", "b": "2"}}


@pytest.mark.parametrize("header", [b'"a,b\n', b"a" * 200_000 + b',"b\n'])
def test_a_quote_left_open_in_the_header(tmp_path: Path, header: bytes):
    with pytest.raises(DamagedFileError, match="quote is opened in the header"):
        read(write(tmp_path, header + b"1,2\n"))


def test_a_column_twice_is_refused(tmp_path: Path):
    with pytest.raises(DamagedFileError, match="column a is there more than once"):
        read(write(tmp_path, b"a,b,a\n1,2,3\n"))


@pytest.mark.parametrize("size", [formats.MAX_LINE + 1, 3 * formats.MAX_LINE, 10 << 20])
@pytest.mark.parametrize("block_bytes", [1 << 16, 1 << 20, 64 << 20])
def test_a_huge_line_is_a_reject_and_nothing_else_is(tmp_path: Path, size: int, block_bytes: int):
    data = b"first\n" + b"x" * size + b"\nlast\n"
    rows, rejects = read(write(tmp_path, data), Shape.LINES, block_bytes)
    assert rows == {1: {TEXT: "first"}, 3: {TEXT: "last"}}
    assert rejects == [(2, "line_too_long")]


def test_lines_with_nul_or_broken_utf8_are_rejects(tmp_path: Path):
    rows, rejects = read(write(tmp_path, b"a\nb\0b\n\xc3\x28\n\xe2\x82\nd"), Shape.LINES)
    assert rows == {1: {TEXT: "a"}, 5: {TEXT: "d"}}
    assert rejects == [(2, "nul"), (3, "not_utf8"), (4, "not_utf8")]


NDJSON = b'{"a":1,"p":{"k":[1,2]}}\n\n{"a":"x"}\n[1]\n{"a":\n5\n{"b":true,"a":1.50}\n{"a":2} {"a":3}\n{}\n'


@pytest.mark.parametrize("block_bytes", [1, 9, 1 << 20])
def test_ndjson_rejects_only_what_is_no_object(tmp_path: Path, block_bytes: int):
    rows, rejects = read(write(tmp_path, NDJSON, "x.ndjson"), block_bytes=block_bytes)
    assert rejects == [(4, "not_json"), (5, "not_json"), (6, "not_json"), (8, "not_json")]
    assert rows[1] == {"a": "1", "p": '{"k": [1, 2]}'}
    assert rows[3] == {"a": "x"}
    assert rows[7] == {"a": "1.5", "b": "true"}
    assert rows[9] == {}


def test_json_arrays_and_rows(tmp_path: Path):
    expected = {1: {"a": "1"}, 2: {"a": "2"}}
    for document in ([{"a": 1}, {"a": 2}], {"rows": [{"a": 1}, {"a": 2}], "count": 2}):
        for indent in (None, 2):
            data = json.dumps(document, indent=indent).encode()
            assert read(write(tmp_path, data, "x.json"))[0] == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": {"b": 1}\n', "not valid JSON"),
        (b'[{"a": 1},', "not valid JSON"),
        (b'{\n"total": 3\n}', "is one JSON object .with total., not rows"),
    ],
)
def test_json_that_is_no_rows(tmp_path: Path, data: bytes, message: str):
    with pytest.raises(DamagedFileError, match=message):
        read(write(tmp_path, data, "x.json"))


def test_parquet_in_blocks(tmp_path: Path):
    frame = pl.DataFrame({"a": range(50_000), "b": [f"x{at}" for at in range(50_000)]})
    path = tmp_path / "x.parquet"
    frame.write_parquet(path, row_group_size=7000)
    rows, rejects = read(path)
    assert len(rows) == 50_000
    assert rows[50_000] == {"a": 49_999, "b": "x49999"}
    assert rejects == []


def test_parquet_types_without_a_column_of_theirs_become_text(tmp_path: Path):
    frame = pl.DataFrame(
        {
            "struct": [{"a": 1, "b": None}],
            "list": [[1, 2]],
            "category": pl.Series(["x"], dtype=pl.Categorical),
            "bytes": [b"abc"],
            "duration": [timedelta(seconds=90)],
            "time": [time(1, 2)],
            "nothing": [None],
        }
    )
    frame.write_parquet(tmp_path / "x")
    expected = {"struct": '{"a":1}', "list": "[1,2]", "category": "x", "bytes": "abc", "duration": "0:01:30"}
    assert read(tmp_path / "x")[0] == {1: {**expected, "time": "01:02:00"}}


@pytest.mark.parametrize("kind", ["csv", "ndjson", "parquet"])
def test_columns_named_as_our_own_do_not_meet_them(tmp_path: Path, kind: str):
    frame = pl.DataFrame({"a": ["1"], "_line": ["7"], "_made": ["x"]})
    getattr(frame, f"write_{kind}")(tmp_path / "x")
    (row,) = read(tmp_path / "x")[0].values()
    assert row == {"a": "1", "file_line": "7", "file_made": "x"}


def test_damaged_parquet(tmp_path: Path):
    path = tmp_path / "x.parquet"
    pl.DataFrame({"a": range(1000)}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DamagedFileError, match=r"x\.parquet: is a damaged Parquet file"):
        read(path)


def test_an_empty_file_has_no_rows(tmp_path: Path):
    for data in (b"", b"\n\n", b"a,b\n", b"a,b"):
        assert read(write(tmp_path, data)) == ({}, [])


def test_formats_are_told_by_content(tmp_path: Path):
    heads = {
        b'{"a":1}\n{"a":2}\n': Format.NDJSON,
        b'{"rows":[{"a":1}]}\n': Format.JSON,
        b"[1]": Format.JSON,
        b" <rss/>": Format.XML,
        b"a,b\n": Format.DELIMITED,
    }
    for data, expected in heads.items():
        assert read_head(write(tmp_path, data), "x").format is expected


pieces = st.lists(
    st.sampled_from(
        ["a", "1", ",", ",,", '"', '""', "\n", "\n\n", "\r\n", "é", "x,y\n", '"q"', '"m\nn"', "1,2\n", " ", "\t"]
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=pieces, block_bytes=st.integers(1, 40), broken=st.sampled_from([b"", b"\xff", b"\0"]))
def test_where_a_block_ends_changes_nothing(tmp_path: Path, pieces: list[str], block_bytes: int, broken: bytes):
    path = write(tmp_path, b"h,i\n" + "".join(pieces).encode() + broken + b"\n5,6\n")
    assert read(path, block_bytes=block_bytes) == read(path)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.text(alphabet='ab",; \t', max_size=9), max_size=6))
def test_bulk_and_careful_reading_of_csv_agree(tmp_path: Path, lines: list[str]):
    path = write(tmp_path, ("h,i\n" + "".join(line + ",z\n" for line in lines)).encode())
    found = read(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "_bulk_block", lambda *_given: None)
        assert read(path) == found


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"])), st.integers(-99, 99)
        ),
        min_size=1,
    ),
    block_bytes=st.integers(1, 200),
)
def test_csv_written_by_others_is_read_back(tmp_path: Path, rows: list[tuple[str, int]], block_bytes: int):
    frame = pl.DataFrame(rows, schema={"t": pl.String, "n": pl.Int128}, orient="row")
    path = tmp_path / "x.csv"
    frame.write_csv(path, quote_style="always")
    found, rejects = read(path, block_bytes=block_bytes)
    assert rejects == []
    assert [row.get("t", "") for row in found.values()] == [text for text, _ in rows]


@pytest.mark.parametrize("block_bytes", [1, 3, 1 << 20])
@pytest.mark.parametrize("text", ["a,b\r1,x\r2,y\r", "a,b\r1,x\r2,y", '\ufeffa,b\r1,"x"\r2,y\r\r'])
def test_lines_that_end_with_a_bare_cr(tmp_path: Path, text: str, block_bytes: int):
    rows, rejects = read(write(tmp_path, text.encode()), block_bytes=block_bytes)
    assert (list(rows.values()), rejects) == ([{"a": "1", "b": "x"}, {"a": "2", "b": "y"}], [])


def test_a_line_break_within_a_quoted_field_of_such_a_file(tmp_path: Path):
    rows, _ = read(write(tmp_path, b'a,b\r1,"x\ny"\r2,z\r'))
    assert list(rows.values()) == [{"a": "1", "b": "x\ny"}, {"a": "2", "b": "z"}]


def test_a_cr_within_a_field_ends_no_line(tmp_path: Path):
    assert list(read(write(tmp_path, b'a,b\n1,"x\ry"\n'))[0].values()) == [{"a": "1", "b": "x\ry"}]


def test_bare_crs_in_ndjson(tmp_path: Path):
    assert list(read(write(tmp_path, b'{"a":1}\r{"a":2}\r'))[0].values()) == [{"a": "1"}, {"a": "2"}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("block_bytes", [1, 5, 1 << 20])
def test_utf_16(tmp_path: Path, encoding: str, pack, block_bytes: int):
    path = write(tmp_path, pack("a\tb\r\n1\tü😀\r\n2\ty\r\n".encode(encoding)))
    assert read(path, block_bytes=block_bytes) == ({2: {"a": "1", "b": "ü😀"}, 3: {"a": "2", "b": "y"}}, [])


def test_half_a_character_of_utf_16(tmp_path: Path):
    data = "a,b\n1,2\n3,".encode("utf-16-le") + b"\x00\xd8" + "\n5,6\n".encode("utf-16-le")
    assert read(write(tmp_path, data)) == ({2: {"a": "1", "b": "2"}, 4: {"a": "5", "b": "6"}}, [(3, "not_utf8")])
    with pytest.raises(DamagedFileError, match="ends within a character"):
        read(write(tmp_path, data[:-1]))


def test_xml_in_utf_16_is_read_as_what_it_now_is(tmp_path: Path):
    path = write(tmp_path, '<?xml version="1.0" encoding="UTF-16"?><rss/>'.encode("utf-16"))
    assert read_head(path, "x").format is Format.XML
    assert formats.read_document(path, "x") == b'<?xml version="1.0"?><rss/>'


def test_a_spreadsheets_line_about_its_separator(tmp_path: Path):
    path = write(tmp_path, b"\xef\xbb\xbfsep=;\r\na;b\r\n1,5;x\r\n")
    assert read(path) == ({3: {"a": "1,5", "b": "x"}}, [])
    assert read_head(path, "x").columns == ("a", "b")
    assert read(write(tmp_path, b"sep=;\n")) == ({}, [])


def test_integers_beyond_64_bits_keep_their_digits(tmp_path: Path):
    long = "123456789012345678901234567890"
    row = f'{{"a": {long},\n "b": [{long}, "x,y"], "c": "[{{"}}'
    for text in (f"[{row}, {{}},{row}]", f'{{"rows": [{row},{{}} , {row} ]}}'):
        rows, _ = read(write(tmp_path, text.encode()))
        assert rows[1] == rows[3] == {"a": long, "b": f'[{long}, "x,y"]', "c": "[{"}
        assert rows[2] == {}


def test_bytes_of_parquet_are_what_their_type_says(tmp_path: Path):
    key = "6f1f9d3c-2a4e-4b7e-9d61-00c5f1a2b3c4"
    path = tmp_path / "x.parquet"
    duckdb.sql(f"copy (select '{key}'::uuid as u, '\\xFF\\x00'::blob as b, 'abc'::blob as t) to '{path}'")
    assert read(path)[0] == {1: {"u": key, "b": "ff00", "t": "abc"}}


def test_a_column_of_bytes_is_text_or_none_of_it_is(tmp_path: Path):
    pl.DataFrame({"a": [b"abc", b"\xff"], "b": [b"abc", None]}).write_parquet(tmp_path / "x")
    assert read(tmp_path / "x")[0] == {1: {"a": "616263", "b": "abc"}, 2: {"a": "ff"}}


def test_decimals_and_times_of_parquet(tmp_path: Path):
    at = datetime(2024, 5, 1, 2, tzinfo=ZoneInfo("Europe/Berlin"))
    frame = pl.DataFrame({"amount": [Decimal("1234.50")], "occurred_at": [at], "order": ["x"]})
    frame.with_columns(pl.col("order").cast(pl.Categorical)).write_parquet(tmp_path / "x")
    assert read(tmp_path / "x")[0] == {1: {"amount": Decimal("1234.50"), "occurred_at": at, "order": "x"}}
