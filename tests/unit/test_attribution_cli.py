"""``earmark attribute`` as a user meets it: the table, the files it writes, one clear line where it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from earmark import cli

PATHS = "path,conversions,value,null\nG,2,20,1\nM,1,10,0\nG > M,1,10,0\n"


@pytest.fixture
def paths(tmp_path: Path) -> Path:
    file = tmp_path / "paths.csv"
    file.write_text(PATHS)
    return file


def attribute(monkeypatch: pytest.MonkeyPatch, *arguments: object, expect: int = 0) -> None:
    monkeypatch.setattr(sys, "argv", ["earmark", "attribute", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code or 0) == expect


def test_the_table_shows_every_model_and_its_totals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], paths: Path
) -> None:
    attribute(monkeypatch, paths)
    told = capsys.readouterr().out
    totals = [line.split()[1:] for line in told.splitlines() if line.split()[:1] == ["all"]]
    assert totals == [["4.00"] * 8, ["40.00"] * 8]
    assert ["M", "1.00", "2.00", "2.00", "1.50", "1.50", "1.60"] in [
        line.split()[:7] for line in told.splitlines()
    ]
    assert "left out: time_decay needs times" in told
    assert "no channel is called direct" in told


def test_json_and_files_hold_the_same_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], paths: Path, tmp_path: Path
) -> None:
    options = ("--model", "markov", "-m", "shapley", "--bootstrap", "20", "--json")
    frames = []
    for target, reader in (("x.csv", pl.read_csv), ("x.parquet", pl.read_parquet)):
        attribute(monkeypatch, paths, *options, "--out", tmp_path / target)
        told = json.loads(capsys.readouterr().out)
        frames.append(reader(tmp_path / target))
        assert frames[-1].columns == ["channel", "model", "conversions", "value", "low", "high"]
        assert frames[-1].to_dicts() == told["credit"]
    assert frames[0].equals(frames[1])
    assert {name: told[name] for name in ("paths", "touches", "conversions", "value", "not_converted")} == {
        "paths": 3,
        "touches": 4,
        "conversions": 4,
        "value": 40,
        "not_converted": 1,
    }
    assert [row["conversions"] for row in told["credit"]] == pytest.approx([2.4, 1.6, 2.5, 1.5])
    assert told["notes"] == []


def test_a_spreadsheet_runs_no_channel_as_a_formula(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = tmp_path / "paths.csv"
    table.write_text('path,conversions\n"=cmd(""x"") > @a > plain",2\n-b,1\n')
    target = tmp_path / "credit.csv"
    attribute(monkeypatch, table, "--model", "linear", "--out", target)
    written = pl.read_csv(target, infer_schema=False)["channel"].to_list()
    assert sorted(written) == ["'-b", '\'=cmd("x")', "'@a", "plain"]
    attribute(monkeypatch, table, "--model", "linear", "--out", tmp_path / "credit.parquet")
    assert "-b" in pl.read_parquet(tmp_path / "credit.parquet")["channel"].to_list()


def test_options_reach_the_models(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "touches.tsv"
    file.write_text(
        "who\twhere\twhen\twon\tworth\n"
        "1\tb\t2026-01-01\t0\t0\n1\ta\t2026-01-08\t0\t0\n1\ta\t2026-01-08T00:00:01Z\t0\t0\n"
        "1\tdirect\t2026-01-15\t1\t8\n2\tb\t2026-01-15\t0\t0\n"
    )
    names = ("--journey", "who", "--channel", "where", "--time", "when", "--converted", "won", "--value", "worth")

    def credit(model: str, *options: str) -> dict[str, float]:
        attribute(monkeypatch, file, *names, "--model", model, "--json", *options)
        rows = json.loads(capsys.readouterr().out)["credit"]
        return {row["channel"]: row["conversions"] for row in rows if row["conversions"]}

    assert credit("last_non_direct") == {"a": 1}
    assert credit("last_non_direct", "--direct", "direct", "--direct", "a") == {"b": 1}
    assert credit("first_touch", "--lookback", "7") == {"a": 1}
    assert credit("linear", "--transform", "collapse") == pytest.approx({"a": 1 / 3, "b": 1 / 3, "direct": 1 / 3})
    assert credit("linear", "--transform", "drop:direct", "--transform", "first") == {"a": 0.5, "b": 0.5}
    assert credit("position_based", "--weights", "1,0,0") == {"b": 1}
    decayed = credit("time_decay", "--half-life", "3.5", "--transform", "collapse")
    assert decayed == pytest.approx({"a": 4 / 21, "b": 1 / 21, "direct": 16 / 21})


def test_paths_that_did_not_convert_can_be_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "paths.csv"
    file.write_text("path,conversions,null\na > b,2,0\na,1,0\nb,1,9\n")
    # Removal effects: 3/8 and 3/4 with the paths that did not convert, 3/4 and 3/4 without.
    for option, expected in (((), [4 / 3, 8 / 3]), (("--converting-only",), [2, 2])):
        attribute(monkeypatch, file, "--model", "markov", "--json", *option)
        credit = json.loads(capsys.readouterr().out)["credit"]
        assert [row["conversions"] for row in credit] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--model", "best"], 1, "there is no model 'best': choose from first_touch"),
        (["--model", "time_decay"], 1, "time_decay needs times"),
        (["--half-life", "0"], 1, "the half-life is 0 days"),
        (["--half-life", "long"], 2, "Invalid value for '--half-life'"),
        (["--weights", ".4,.4,.4"], 1, "sum to 1"),
        (["--weights", ".5,.5"], 1, "the weights are '.5,.5': give three numbers"),
        (["--transform", "sort"], 1, "there is no transform 'sort'"),
        (["--direct", "nobody"], 1, "there is no channel 'nobody' to be direct"),
        (["--conversions", "wins"], 1, "has no column 'wins' (--conversions): it has path, conversions"),
        (["--out", "x.xlsx"], 1, "x.xlsx: give --out a name that ends in .csv or .parquet"),
        (["--out", "nowhere/x.csv"], 1, "nowhere/x.csv: cannot be written"),
        (["--out", "nowhere/x.parquet"], 1, "nowhere/x.parquet: cannot be written"),
        (["--bootstrap", "-1"], 1, "-1 bootstrap samples"),
    ],
)
def test_a_mistake_ends_in_one_clear_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    paths: Path,
    arguments: list[str],
    code: int,
    told: str,
) -> None:
    attribute(monkeypatch, paths, *arguments, expect=code)
    printed = capsys.readouterr()
    assert told in " ".join(printed.err.split())
    assert printed.out == ""


def test_a_bad_row_is_named_without_a_traceback(tmp_path: Path) -> None:
    file = tmp_path / "paths.csv"
    file.write_text(f"{PATHS}G > > M,1,0,0\n")
    done = subprocess.run(
        [Path(sys.executable).parent / "earmark", "attribute", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"error {file}, line 5: path is 'G > > M', which has an empty part: write a channel on each side of '>'\n"
    )
