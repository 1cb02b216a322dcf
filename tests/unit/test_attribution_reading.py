"""Tables of paths and touches as they come: shapes, names, formats, order of rows, cuts, and what is refused."""

import gzip
import itertools
import random
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark.ingestion.errors import LoadError
from earmark.journeys.comparison import UNATTRIBUTED, Options, compare_journeys
from earmark.journeys.errors import AttributionError
from earmark.journeys.reading import Columns, Journeys, read_journeys

Line = tuple[str, float, float, float]  # path, conversions, value, nulls


def read(tmp_path: Path, text: str, columns: Columns | None = None, **options: object) -> Journeys:
    file = tmp_path / "table.csv"
    file.write_text(text)
    return read_journeys(str(file), columns, **options)  # type: ignore[arg-type]


def lines(journeys: Journeys) -> list[Line]:
    paths = journeys.paths
    names = [paths.channels[step] for step in paths.steps]
    texts = [" ".join(names[start:end]) for start, end in itertools.pairwise(paths.starts)]
    return list(
        zip(texts, *(list(map(float, x)) for x in (paths.conversions, paths.value, paths.nulls)), strict=True)
    )


# --- Paths ------------------------------------------------------------------------------------------------


def test_equal_paths_add_up_however_they_are_spaced(tmp_path: Path) -> None:
    text = "path,conversions,value,null\nb,1,2,0\na > b,1,5,0\na>b,2,7.5,3\n  a  >b ,0,0,1\n"
    assert lines(read(tmp_path, text)) == [("a b", 3, 12.5, 4), ("b", 1, 2, 0)]


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("path,total_conversions,total_conversion_value,total_null", None),
        ("Path,Conversions,Revenue,Nulls", None),
        ("way,won,worth,lost", Columns(path="way", conversions="won", value="worth", null="lost")),
        ("way,conversions,value,null", Columns(path="way")),
    ],
)
def test_columns_are_found_by_usual_names_and_by_option(
    tmp_path: Path, header: str, columns: Columns | None
) -> None:
    assert lines(read(tmp_path, f"{header}\na > b,3,6,1\n", columns)) == [("a b", 3, 6, 1)]


def test_value_and_nulls_may_be_missing(tmp_path: Path) -> None:
    journeys = read(tmp_path, "path;conversions\na | b;3\n", separator="|")
    assert lines(journeys) == [("a b", 3, 0, 0)]
    assert not journeys.has_value
    assert compare_journeys(journeys).table["value"].null_count() == 2 * 8


def test_a_separator_that_no_path_holds_is_said(tmp_path: Path) -> None:
    text = "path,conversions\na | b,1\n"
    assert "no path holds the separator '>'" in read(tmp_path, text).notes[0]
    assert read(tmp_path, text, separator="|").notes == ()


def test_every_format_reads_the_same(tmp_path: Path) -> None:
    frame = pl.DataFrame({"path": ["a > b", "b"], "conversions": [2, 1], "value": [3.5, 0.0], "null": [0, 4]})
    frame.write_csv(tmp_path / "x.csv")
    frame.write_csv(tmp_path / "x.tsv", separator="\t")
    frame.write_ndjson(tmp_path / "x.ndjson")
    frame.write_parquet(tmp_path / "x.parquet")
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress((tmp_path / "x.csv").read_bytes()))
    for name in ("x.csv", "x.tsv", "x.ndjson", "x.parquet", "x.csv.gz"):
        assert lines(read_journeys(str(tmp_path / name))) == [("a b", 2, 3.5, 0), ("b", 1, 0, 4)], name


# --- Touches ----------------------------------------------------------------------------------------------


def test_a_journey_is_cut_after_each_conversion(tmp_path: Path) -> None:
    journeys = read(
        tmp_path,
        "journey,channel,time,converted,value\n"
        "1,c,2026-01-04,0,0\n1,a,2026-01-01,0,0\n1,b,2026-01-03,1,9\n1,d,2026-01-05,yes,2\n1,a,2026-01-06,0,\n"
        "2,a,2026-01-01,,\n",
    )
    assert lines(journeys) == [("a b", 1, 9, 0), ("c d", 1, 2, 0), ("a", 0, 0, 1), ("a", 0, 0, 1)]
    assert journeys.notes == (
        "1 touches come after the last conversion of their journey: 1 further paths, not converted",
    )


def test_times_with_and_without_offset_are_put_in_order(tmp_path: Path) -> None:
    journeys = read(
        tmp_path,
        "user_id,channel_name,timestamp,conversion\n"
        "1,second,2026-01-01T10:00:00Z,0\n1,first,2026-01-01T11:30:00+02:00,0\n1,third,2026-01-01 10:00:01,1\n",
    )
    assert lines(journeys)[0][0] == "first second third"
    assert journeys.paths.ages is not None
    assert journeys.paths.ages * 86400 == pytest.approx([1801, 1, 0])


def test_touches_of_one_time_come_in_order_of_channel_and_those_that_convert_last(tmp_path: Path) -> None:
    header = "journey,channel,time,converted\n"
    rows = ["1,a,2026-01-01,1\n", "1,c,2026-01-01,0\n", "1,b,2026-01-01,0\n"]
    for order in itertools.permutations(rows):
        assert lines(read(tmp_path, header + "".join(order))) == [("b c a", 1, 0, 0)]


def test_conversions_of_one_time_share_their_path(tmp_path: Path) -> None:
    text = "journey,channel,time,converted,value\n1,a,2026-01-01,0,0\n1,,2026-01-02,1,5\n1,,2026-01-02,2,7\n"
    assert lines(read(tmp_path, text)) == [("a", 3, 12, 0)]


def test_the_lookback_is_to_the_second_and_bounds_paths_that_do_not_convert_too(tmp_path: Path) -> None:
    text = (
        "journey,channel,time,converted\n"
        "1,x,2026-01-01T11:59:59Z,0\n1,a,2026-01-01T12:00:00Z,0\n1,b,2026-01-08T12:00:00Z,1\n"
        "2,x,2026-01-01T11:59:59Z,0\n2,a,2026-01-01T12:00:00Z,0\n2,b,2026-01-08T12:00:00Z,0\n"
    )
    journeys = read(tmp_path, text, lookback=7)
    assert lines(journeys) == [("a b", 1, 0, 0), ("a b", 0, 0, 1)]
    assert journeys.notes == ("2 touches are older than 7 days and left out",)


def test_conversions_without_a_touch_of_their_own_are_listed_as_unattributed(tmp_path: Path) -> None:
    text = (
        "journey,channel,time,converted,value\n"
        "1,a,2026-01-01,0,0\n1,,2026-01-02,1,5\n1,,2026-01-03,1,7\n"  # the third: nothing since the second
        "2,a,2026-01-01,0,0\n2,,2026-03-01,1,11\n"  # out of the lookback
    )
    journeys = read(tmp_path, text, lookback=30)
    assert lines(journeys) == [("a", 1, 5, 0)]
    table = compare_journeys(journeys, ["linear", "markov"], Options(bootstrap=5)).table
    assert table.filter(channel=UNATTRIBUTED)["conversions"].to_list() == [2, 2]
    for model in ("linear", "markov"):
        assert table.filter(model=model)["conversions"].sum() == 3
        assert table.filter(model=model)["value"].sum() == 23
    assert "2 conversions have no touch" in journeys.notes[1]


def test_flag_and_value_of_a_whole_journey(tmp_path: Path) -> None:
    text = "journey,channel,time,converted,value\n1,a,2026-01-01,1,5\n1,b,2026-01-02,1,5\n2,b,2026-01-02,0,0\n"
    assert lines(read(tmp_path, text, per="journey")) == [("a b", 1, 5, 0), ("b", 0, 0, 1)]
    assert lines(read(tmp_path, text, per="row")) == [("a", 1, 5, 0), ("b", 1, 5, 0), ("b", 0, 0, 1)]
    with pytest.raises(AttributionError, match="--per journey if such a journey converts once"):
        read(tmp_path, text)


def test_rows_have_their_own_flag_beside_a_time_of_conversion_where_it_is_said(tmp_path: Path) -> None:
    text = (
        "journey,channel,time,converted,converted_at\n1,a,2026-01-01,1,2026-01-02\n1,b,2026-01-02,1,2026-01-02\n"
    )
    assert lines(read(tmp_path, text)) == [("a b", 1, 0, 0)]
    assert lines(read(tmp_path, text, per="row")) == [("a", 1, 0, 0), ("b", 1, 0, 0)]


def test_touches_after_the_journeys_conversion_are_left_out_and_counted(tmp_path: Path) -> None:
    text = (
        "journey,channel,time,converted_at,value\n"
        "1,a,2026-01-01,2026-01-02T12:00,5\n1,b,2026-01-02,2026-01-02T12:00,\n1,c,2026-01-03,2026-01-02T12:00,5\n"
        "2,c,2026-01-03,,\n"
    )
    journeys = read(tmp_path, text)
    assert lines(journeys) == [("a b", 1, 5, 0), ("c", 0, 0, 1)]
    assert journeys.notes == ("1 touches after the conversion of their journey are left out",)
    assert journeys.paths.ages is not None
    assert journeys.paths.ages.tolist() == [1.5, 0.5, 0]


def test_without_a_flag_every_journey_converts_and_it_is_said(tmp_path: Path) -> None:
    journeys = read(tmp_path, "journey,channel,time\n1,a,2026-01-01\n1,b,2026-01-02\n2,b,2026-01-02\n")
    assert lines(journeys) == [("a b", 1, 0, 0), ("b", 1, 0, 0)]
    assert "each is taken to have converted once" in journeys.notes[0]


def test_a_channel_of_a_touch_table_may_hold_the_separator(tmp_path: Path) -> None:
    text = "journey,channel,time,converted\n1,a > b,2026-01-01,1\n"
    assert lines(read(tmp_path, text)) == [("a > b", 1, 0, 0)]


def test_parquet_with_times_numbers_and_truth_values(tmp_path: Path) -> None:
    text = "journey,channel,time,converted\n1,a,2026-01-01T00:00:00Z,false\n1,b,2026-01-02T00:00:00Z,true\n"
    expected = lines(read(tmp_path, text))
    frame = pl.read_csv(tmp_path / "table.csv", try_parse_dates=True)
    assert frame.schema["converted"] == pl.Boolean
    for time in (
        pl.col("time"),
        pl.col("time").dt.replace_time_zone(None),
        pl.col("time").dt.cast_time_unit("ns"),
    ):
        frame.with_columns(time).write_parquet(tmp_path / "table.parquet")
        assert lines(read_journeys(str(tmp_path / "table.parquet"))) == expected


# --- The order of rows ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from("12"), st.sampled_from("abc"), st.integers(1, 4), st.integers(0, 1)),
        min_size=1,
        max_size=10,
    ).filter(lambda rows: any(row[3] for row in rows)),
    seed=st.integers(0, 1000),
)
def test_the_order_of_touches_in_the_file_makes_no_difference(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int, int]], seed: int
) -> None:
    shuffled = random.Random(seed).sample(rows, len(rows))  # noqa: S311  (nothing secret)
    folder = tmp_path_factory.mktemp("touches")
    header = "journey,channel,time,converted,value\n"
    one, other = (
        read(folder, header + "".join(f"{a},{b},2026-01-0{c},{d},{d * 3}\n" for a, b, c, d in order), per="row")
        for order in (rows, shuffled)
    )
    assert lines(one) == lines(other)
    credit = [compare_journeys(item, options=Options(bootstrap=10)).table for item in (one, other)]
    assert credit[0].equals(credit[1])


def test_the_order_of_paths_in_the_file_makes_no_difference(tmp_path: Path) -> None:
    rows = [
        f"{'> '.join(path)},{at % 3},{at % 3 * 2},{at % 2}\n"
        for at, path in enumerate(itertools.product("abc", repeat=3))
    ]
    header = "path,conversions,value,null\n"
    options = Options(bootstrap=10)
    one = compare_journeys(read(tmp_path, header + "".join(rows)), options=options).table
    other = compare_journeys(read(tmp_path, header + "".join(reversed(rows))), options=options).table
    assert one.equals(other)


# --- What is refused --------------------------------------------------------------------------------------

PATHS = "path,conversions,value,null\na,1,1,0\n"
TOUCHES = "journey,channel,time,converted,value\n1,a,2026-01-01,1,5\n"
BAD = [
    ("", {}, "holds no rows"),
    ("path,conversions\n", {}, "holds no rows"),
    ("a,b\n1,2\n", {}, "no column for journey and channel and time among a, b"),
    ("path\na\n", {}, "no column for conversions among path"),
    (PATHS, {"columns": Columns(value="worth")}, r"has no column 'worth' \(--value\): it has path, conversions"),
    ("path,conversions,value,revenue\na,1,1,1\n", {}, "'value' and 'revenue' could both be the value"),
    (PATHS, {"columns": Columns(path="path", channel="value")}, "choose one"),
    (PATHS, {"lookback": 7.0}, "--per and --lookback go with a table of touches"),
    (PATHS, {"separator": " "}, "separator is blank"),
    (f"{PATHS},1,1,0\n", {}, r"table.csv, line 3: path is empty"),
    (f"{PATHS}a > > b,1,1,0\n>a,1,1,0\n", {}, r"line 3: path is 'a > > b', which has an empty part.*1 more"),
    (f"{PATHS}a >,1,1,0\n", {}, "line 3: path is 'a >', which has an empty part"),
    (f"{PATHS}b,some,1,0\n", {}, "line 3: conversions is 'some', which is no number"),
    (f"{PATHS}b,NaN,1,0\n", {}, "line 3: conversions is 'NaN', which is no number"),
    (f"{PATHS}b,-1,1,0\n", {}, "line 3: conversions is -1, which is negative"),
    (f"{PATHS}b,,1,0\n", {}, "line 3: conversions is empty: write 0"),
    (f"{PATHS}b,1,inf,0\n", {}, "line 3: value is 'inf', which is no number"),
    (f"{PATHS}b,1,1,-2\n", {}, "line 3: null is -2, which is negative"),
    (f"{PATHS}b,0,1,0\n", {}, "line 3: value is 1 where conversions is 0"),
    (f"{PATHS}b,1,1\n", {}, "line 3: the row has 3 fields; the header has 4"),
    ('{"path": ["a", "b"], "conversions": 1}\n', {}, "line 1: path is a list: write it as text, like a > b"),
    ("path,conversions\na,0\n", {}, "holds no conversion"),
    (TOUCHES, {"lookback": 0.0}, "lookback is 0 days"),
    (TOUCHES, {"per": "user"}, "--per is 'user': give row or journey"),
    (f"{TOUCHES},a,2026-01-01,0,0\n", {}, "line 3: journey is empty"),
    (f"{TOUCHES}1,,2026-01-01,0,0\n", {}, "line 3: channel is empty: only a row that converts"),
    (f"{TOUCHES}1,a,soon,0,0\n", {}, "line 3: time is 'soon', which is no time: write ISO 8601"),
    (f"{TOUCHES}1,a,,0,0\n", {}, "line 3: time is empty"),
    (f"{TOUCHES}1,a,2026-01-01,maybe,0\n", {}, "line 3: converted is 'maybe', which is no number"),
    (f"{TOUCHES}1,a,2026-01-01,-1,0\n", {}, "line 3: converted is -1, which is negative"),
    (f"{TOUCHES}1,a,2026-01-01,0,3\n", {}, "line 3: value is 3 where nothing converts"),
    (f"{TOUCHES}2,,2026-01-01,1,3\n", {}, "line 3: channel has no touch up to this conversion"),
    (
        f"{TOUCHES}2,,2026-01-01,1,3\n2,a,2026-01-02,0,0\n",
        {},
        "line 3: channel has no touch up to this conversion",
    ),
    ("journey,channel,time,converted\n1,a,2026-01-01,0\n", {}, "holds no conversion"),
    (
        "journey,channel,time,converted\n1,,2026-01-01,1\n",
        {},
        "line 2: channel has no touch up to this conversion",
    ),
    ("journey,channel,time\n1,a,2026-01-01\n", {"per": "row"}, "--per row needs a flag a row"),
    ("journey,channel,time,converted_at\n1,a,2026-01-02,2026-01-01\n", {}, "line 2: channel has no touch up to"),
    (
        "journey,channel,time,value\n1,a,2026-01-02,1\n1,b,2026-01-02,2\n",
        {},
        "line 2: value differs from other rows of journey '1'",
    ),
    (
        "journey,channel,time,converted,converted_at\n1,a,2026-01-02,0,2026-01-03\n",
        {},
        "line 2: converted_at is set and converted is not",
    ),
]


@pytest.mark.parametrize(("text", "options", "told"), BAD)
def test_a_bad_row_is_refused_with_file_line_and_field(
    tmp_path: Path, text: str, options: dict[str, object], told: str
) -> None:
    with pytest.raises(AttributionError, match=told):
        read(tmp_path, text, **options)  # type: ignore[arg-type]


def test_nan_of_parquet_is_refused(tmp_path: Path) -> None:
    pl.DataFrame({"path": ["a", "b"], "conversions": [1.0, float("nan")]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(AttributionError, match=r"x\.parquet, row 2: conversions is 'NaN', which is no number"):
        read_journeys(str(tmp_path / "x.parquet"))


def test_a_file_that_is_not_there_is_a_load_error(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="there is no such file"):
        read_journeys(str(tmp_path / "nowhere.csv"))
