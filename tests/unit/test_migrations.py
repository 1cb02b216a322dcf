"""Migrations, without a database: names, order and what the ledger says of them."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from earmark.warehouse.migrations import (
    Applied,
    Migration,
    MigrationError,
    State,
    carry_over,
    compare,
    read_migrations,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_states() -> None:
    same, changed, new = Migration("0001_a.sql", "a"), Migration("0002_b.sql", "b"), Migration("0003_c.sql", "c")
    ledger = [
        Applied("0000_gone.sql", "x", AT, "ann"),
        Applied("0001_a.sql", same.checksum, AT, "ann"),
        Applied("0002_b.sql", "another", AT, "ann"),
    ]
    states = {item.file_name: item.state for item in compare([same, changed, new], ledger)}
    assert states == {
        "0000_gone.sql": State.MISSING,
        "0001_a.sql": State.APPLIED,
        "0002_b.sql": State.CHANGED,
        "0003_c.sql": State.PENDING,
    }


@pytest.mark.parametrize("name", ["1_short.sql", "0001-dash.sql", "0001_Upper.sql"])
def test_a_badly_named_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("select 1")
    with pytest.raises(MigrationError, match="name migrations like"):
        read_migrations(tmp_path)


def test_a_number_stands_once(tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_text("select 1")
    (tmp_path / "0001_b.sql").write_text("select 1")
    with pytest.raises(MigrationError, match="have the same number"):
        read_migrations(tmp_path)


def test_the_projects_own_files_are_well_named() -> None:
    numbers = [migration.number for migration in read_migrations() if migration.number is not None]
    assert numbers == list(range(1, len(numbers) + 1))


def test_functions_that_changed_wait_to_run_again() -> None:
    functions = Migration("functions/a.sql", "a")
    (item,) = compare([functions], [Applied("functions/a.sql", "another", AT, "ann")])
    assert item.state is State.PENDING


def test_a_ledger_of_the_files_before_is_carried_over() -> None:
    files = [Migration(f"000{number}_x.sql", "x") for number in (8, 9)]
    later = [Migration("0010_y.sql", "y"), Migration("functions/z.sql", "z")]
    before = [Applied(name, "old", AT, "ann") for name in ("0001_schemas.sql", "0022_change_log.sql")]
    carried = carry_over(before, [*files, *later])
    assert carried == [Applied(file.file_name, file.checksum, AT, "ann") for file in files]
    assert [item.state for item in compare([*files, *later], carried)] == [State.APPLIED] * 2 + [State.PENDING] * 2
    assert carry_over(carried, [*files, *later]) == carried


def test_a_ledger_that_was_left_on_the_way_is_refused_with_what_to_do() -> None:
    before = [Applied(name, "old", AT, "ann") for name in ("0001_schemas.sql", "0009_changes.sql")]
    with pytest.raises(MigrationError, match=r"left at 0009_changes.sql: bring it to 0022_change_log.sql"):
        carry_over(before, [])
