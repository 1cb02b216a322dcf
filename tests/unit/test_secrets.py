"""No password on any path: whatever a variable or a URL holds, nothing printed, raised or shown repeats it."""

import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from earmark import cli, secret_urls
from earmark import database_url as address
from earmark.addresses import public_networks
from earmark.cli import database, status, tenants
from earmark.counting import agent_lists
from earmark.database_url import AddressError
from earmark.errors import EarmarkError
from earmark.ingestion import files
from earmark.settings import PROJECT_ROOT, Settings, SettingsError, load_settings
from earmark.warehouse import dbt
from earmark.warehouse.database import Database, DatabaseUnavailableError
from earmark.warehouse.server import resolve

SECRET = "hUnt3r2zz"
EARMARK = Path(sys.executable).parent / "earmark"

# A password in every shape that cuts a URL somewhere else than meant.
PASSWORDS = [
    SECRET,
    *(f"{SECRET}{mark}{SECRET}" for mark in "@:/?#[]%& =+'\"\\;,!$*()<>^`{|}~\t\n\r\x01\x7f"),
    *(f"{mark}{SECRET}" for mark in "@:/?#[%& "),
    *(f"{SECRET}{end}" for end in ("%", "%s", "%4", "%zz", "%00", "%0a", "%ff", "\u00fc", "\udcff", "@", ":")),
    *(f"1234{mark}{SECRET}" for mark in "/?#@:"),
    f"a@1/{SECRET}", f"a@b/x?{SECRET}", f"a@b:1/x?y={SECRET}", f"a@b/x?user={SECRET}", f"a@b/x?port={SECRET}",
    f"[{SECRET}", f"[::1]{SECRET}", f"${{{SECRET}}}", f"%(x)s{SECRET}", f"{{{{ {SECRET} }}}}",
]  # fmt: skip
URLS = [
    "postgresql://ann:{}@127.0.0.1:1/pods",
    "postgres://ann:{}@127.0.0.1:1/pods?sslmode=require",
    "postgresql://:{}@127.0.0.1:1/pods",
    "postgresql://ann:{}@127.0.0.1:port/pods",
    "postgresql://ann:{}@127.0.0.1:99999/pods",
    "postgresql://ann:{}@127.0.0.1:1",
    "postgresql://ann:{}@[::1/pods",
    "postgresql://ann:{}@127.0.0.1:1,127.0.0.1:2/pods",
    "postgresql://127.0.0.1:1/pods?user=ann&password={}",
    "postgresql://127.0.0.1:1/pods?sslpassword={}",
    "postgresql:/ann:{}@127.0.0.1:1/pods",
    "mysql://ann:{}@127.0.0.1:1/pods",
    "host=127.0.0.1 port=1 user=ann password={} dbname=pods",
    "host=127.0.0.1 port=1 user=ann password='{} dbname=pods",
    "jdbc:postgresql://127.0.0.1:1/pods?password={}",
    "{}",
]


def variables() -> list[str]:
    return sorted((field.alias or name).upper() for name, field in Settings.model_fields.items())


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in variables():
        if name != "EARMARK_HOME":
            monkeypatch.delenv(name, raising=False)
    before = dict(secret_urls._REAL)
    yield
    secret_urls._REAL.clear()
    secret_urls._REAL.update(before)


def told(error: BaseException) -> str:
    """Return all that a traceback would print of an error, with whatever its chain holds, suppressed or not."""
    parts = ["".join(traceback.format_exception(error))]
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        parts += [str(error), repr(error)]
        error = error.__cause__ or (error.__context__ if not error.__suppress_context__ else None)  # type: ignore[assignment]
    return "\n".join(parts)


def holds_secret(text: str) -> bool:
    """Whether a text holds the secret; half of it would do as well."""
    return SECRET in text or SECRET[:6] in text or SECRET[-6:] in text


def outcome(action: Callable[[], Any], error: type[Exception]) -> tuple[Any, Exception | None]:
    """Return what comes of an action: its result, or its error."""
    try:
        return action(), None
    except error as raised:
        return None, raised


@pytest.mark.parametrize("variable", ["DATABASE_URL", "DATABASE_READ_URL"])
@pytest.mark.parametrize("form", URLS)
def test_a_url_of_any_shape_is_taken_or_refused_without_a_word_of_it(
    variable: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for password in PASSWORDS:
        value = form.format(password)
        monkeypatch.setenv(variable, value)
        settings_, refused = outcome(load_settings, SettingsError)
        if refused:
            assert not holds_secret(told(refused)), value
            assert str(refused).startswith(f"{variable} holds a value that is not shown; ")
            assert len(str(refused).splitlines()) == 1
            continue
        url = SecretStr.get_secret_value(getattr(settings_, variable.lower()))
        database = Database.from_url(url)
        # What is taken means what was written: no piece of the password has become something else.
        assert not holds_secret(f"{settings_!r} {database!r} {database} {database.options}"), value
        assert holds_secret(database.password or "")
        if database.host == "127.0.0.1" and database.port == 1:
            with pytest.raises(DatabaseUnavailableError) as unreachable:
                database.connect()
            assert not holds_secret(told(unreachable.value)), value


def test_every_password_can_be_written_percent_encoded() -> None:
    for password in PASSWORDS:
        if address.is_text(password):
            url = f"postgresql://ann:{quote(password, safe='')}@127.0.0.1:1/pods"
            database = Database.from_url(url)
            assert database.password == password
            assert (database.user, database.host, database.port, database.name) == ("ann", "127.0.0.1", 1, "pods")
            assert Database.from_url(database.url()) == database
            assert Database.from_url(database.conninfo()) == database


@pytest.mark.parametrize("variable", variables())
def test_no_variable_repeats_a_url_that_was_put_into_it(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "app", status.status_)  # reading options a thousand times would take minutes
    forms = ("postgresql://ann:{}@127.0.0.1:1/pods", "s3://KEY:{}@bucket/x", "https://h/x?X-Amz-Signature={}")
    for number, password in enumerate(PASSWORDS):
        for form in forms if number % 10 == 0 else forms[number % 3 : number % 3 + 1]:
            value = form.format(password)
            monkeypatch.setenv("POSTGRES_HOST", "127.0.0.1")
            monkeypatch.setenv("POSTGRES_PORT", "1")
            if variable == "EARMARK_HOME":
                continue  # a path is no secret, and any text can be one
            monkeypatch.setenv(variable, value)
            with pytest.raises(SystemExit) as ended:
                cli.main()
            output = "".join(capsys.readouterr())
            assert ended.value.code == 1
            assert "Traceback" not in output
            assert not holds_secret(output), (value, output)
            assert len(output.strip().splitlines()) == 1, output
            assert output.startswith("error ")


@pytest.mark.parametrize("variable", ["POSTGRES_PASSWORD", "EARMARK_HASH_KEY"])
def test_a_secret_of_any_shape_is_used_or_refused_without_a_word_of_it(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POSTGRES_HOST", "127.0.0.1")
    monkeypatch.setenv("POSTGRES_PORT", "1")
    for password in PASSWORDS:
        monkeypatch.setenv(variable, password)
        for command in (
            status.status_,
            partial(database.migrate_, show_status=False, dry_run=False),
            tenants.tenant_list,
        ):
            monkeypatch.setattr(cli, "app", command)
            with pytest.raises(SystemExit) as ended:
                cli.main()
            output = "".join(capsys.readouterr())
            assert ended.value.code == 1
            assert "Traceback" not in output
            assert not holds_secret(output), password
            assert len(output.strip().splitlines()) == 1, output


@settings(max_examples=400, deadline=None)
@given(st.text(min_size=0, max_size=40), st.text(max_size=20), st.integers(0, 3))
def test_random_addresses_are_taken_as_meant_or_refused_in_words(before: str, after: str, form: int) -> None:
    url = ("postgresql://ann:{}@127.0.0.1/pods", "postgresql://{}@127.0.0.1/pods", "postgresql://{}", "{}")[form]
    value = url.format(f"{before}{SECRET}{after}")
    parts, refused = outcome(partial(address.parse, value), AddressError)
    if refused:
        assert not holds_secret(told(refused))
        return
    assert set(parts) <= {"host", "port", "user", "password", "dbname", *address._OPTIONS}
    if form == 0:
        assert holds_secret(parts["password"])
        assert not any(holds_secret(value) for name, value in parts.items() if name != "password")


def test_a_drivers_text_loses_the_password_however_it_is_written_there() -> None:
    for password in PASSWORDS:
        database = Database("127.0.0.1", 1, "pods", "ann", password)
        assert not holds_secret(database.scrub(f"password {password}"))
        if not address.is_text(password):
            continue
        for written in (quote(password), quote(password, safe=""), repr(password), database.conninfo()):
            assert not holds_secret(database.scrub(f'invalid value "{written}" for option')), written


def test_what_holds_a_password_does_not_show_it() -> None:
    database = Database("127.0.0.1", 1, "pods", "ann", SECRET)
    invocation = dbt.Invocation(["build"], None, database.environment())
    assert not holds_secret(f"{database!r} {database} {invocation!r} {invocation}")
    assert holds_secret(str(database.environment()))


SIGNED = [
    f"https://ann:{SECRET}@127.0.0.1:1/access.log",
    f"https://ann:{SECRET}/x@127.0.0.1:1/access.log",
    f"https://ann:{SECRET}?x@127.0.0.1:1/access.log",
    f"https://127.0.0.1:1/access.log?X-Amz-Credential=a&X-Amz-Signature={SECRET}",
    f"https://127.0.0.1:1/access.log?{SECRET}",
    f"https://127.0.0.1:1/access.log?sig={quote(SECRET + '/=')}#x",
    f"http://{SECRET}@127.0.0.1:1/access.log",
    f"nosuch://KEY:{SECRET}@bucket/access.log",
    f"nosuch://[{SECRET}",
]


@pytest.mark.parametrize("url", SIGNED[:-1])
def test_a_signed_url_is_opened_whole_and_shown_without_what_opens_it(url: str) -> None:
    name = secret_urls.remember(url)
    assert not holds_secret(name)
    assert secret_urls.shown(name) == name
    assert "access.log" in name
    assert secret_urls.real(name) == url
    with pytest.raises(EarmarkError) as error:
        files.state(name)
    assert not holds_secret(told(error.value))


@pytest.mark.parametrize("url", SIGNED[:7])
def test_mirrors_and_lists_do_not_show_what_opens_them(url: str, tmp_path: Path) -> None:
    with pytest.raises(EarmarkError) as error:
        public_networks.fetch_lists(tmp_path, {"aws": url}, ["aws"])
    assert not holds_secret(told(error.value))
    with pytest.raises(EarmarkError) as error:
        agent_lists.fetch(url)
    assert not holds_secret(told(error.value))


def test_paths_and_plain_urls_are_shown_as_they_are() -> None:
    for url in ("/srv/a@b/c?d.log", "s3://bucket/2026/a@b.log", "https://h/a.log", "a:b@c", "s3://bucket/a:b.log"):
        assert secret_urls.remember(url) == url


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a command whose files all go to the test's folder."""
    kept = {name: value for name, value in os.environ.items() if name not in variables()}
    folders = {"EARMARK_HOME": "home", "DBT_TARGET_PATH": "target", "DBT_LOG_PATH": "logs"}
    return {**kept, **{name: str(tmp_path / folder) for name, folder in folders.items()}, "COLUMNS": "200"}


def everything_written(folder: Path) -> str:
    return "".join(
        path.read_bytes().decode("latin-1")
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    )


@pytest.mark.parametrize(
    "command",
    [["run"], ["load"], ["dbt", "debug"], ["db", "backup", "x"], ["db", "psql"], ["ui"], ["tenant", "list"]],
    ids=" ".join,
)
def test_every_command_tells_a_malformed_url_in_one_sentence(
    command: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    value = f"postgresql://ann:{SECRET}%ss/{SECRET}@h/pods"
    done = subprocess.run(
        [EARMARK, *command],
        env={**environment, "DATABASE_URL": value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error DATABASE_URL holds a value that is not shown; ")
    assert len(done.stderr.splitlines()) == 1
    assert not holds_secret(done.stdout + done.stderr + everything_written(tmp_path))


def test_a_server_that_is_not_there_costs_no_password_in_output_logs_and_files(
    environment: dict[str, str], tmp_path: Path
) -> None:
    url = f"postgresql://ann:{SECRET}@127.0.0.1:1/pods"
    for command in (["status"], ["dbt", "debug"]):
        done = subprocess.run(
            [EARMARK, *command],
            env={**environment, "DATABASE_URL": url},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        assert "127.0.0.1" in done.stdout + done.stderr
        assert not holds_secret(done.stdout + done.stderr + everything_written(tmp_path))


def test_dagster_takes_the_settings_when_it_needs_them_and_tells_them_in_one_sentence(
    environment: dict[str, str], tmp_path: Path
) -> None:
    code = (
        "import os, sys, traceback\n"
        "from orchestration.defs.resources import Warehouse\n"
        "for url in sys.argv[1:]:\n"
        "    os.environ['DATABASE_URL'] = url\n"
        "    try:\n"
        "        with Warehouse().connect(): pass\n"
        "    except Exception:\n"
        "        traceback.print_exc()\n"
    )
    urls = (f"postgresql://ann:{SECRET}@1/{SECRET}@h/pods", f"postgresql://ann:{SECRET}@127.0.0.1:1/pods")
    done = subprocess.run(
        [sys.executable, "-c", code, *urls], env={**environment, "DATABASE_URL": urls[0]}, cwd=PROJECT_ROOT,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "SettingsError: DATABASE_URL holds a value that is not shown" in done.stderr
    assert "DatabaseUnavailableError: Cannot reach database pods on 127.0.0.1:1 as ann" in done.stderr
    assert "During handling" not in done.stderr
    assert not holds_secret(done.stdout + done.stderr + everything_written(tmp_path))


def test_a_dotenv_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".env"
    monkeypatch.setitem(Settings.model_config, "env_file", path)
    path.write_bytes(b"EARMARK_HASH_KEY=\xff\xfe" + SECRET.encode())
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert "cannot be read as text in UTF-8" in str(error.value)
    assert not holds_secret(told(error.value))
    path.write_text(f"DATABASE_URL='postgresql://ann:{SECRET}@h\nPOSTGRES_PASSWORD=\"{SECRET}\n")
    logging.getLogger("dotenv").handlers.clear()
    settings_ = load_settings()
    assert not holds_secret(repr(settings_))


def test_files_that_hold_secrets_are_the_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from earmark.addresses.site import hash_key

    monkeypatch.setenv("EARMARK_HOME", str(tmp_path / "home"))
    os.umask(before := os.umask(0))
    try:
        key = hash_key(load_settings())
    finally:
        os.umask(before)
    assert len(key.secret) == 64
    for path in (tmp_path / "home").rglob("*"):
        if path.is_file() and key.secret in path.read_bytes():
            assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", [b"", b"short\n"])
def test_a_damaged_hash_key_is_told_and_not_used(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from earmark.addresses.site import hash_key

    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    (tmp_path / "hash_key").write_bytes(content)
    with pytest.raises(SettingsError, match="holds no key of 16 characters"):
        hash_key(load_settings())
    (tmp_path / "hash_key").unlink()
    (tmp_path / "hash_key").mkdir()
    with pytest.raises(SettingsError, match=r"hash_key, .* cannot be used"):
        hash_key(load_settings())


def test_a_replica_is_reached_as_it_says_and_not_as_the_main_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://ann:{SECRET}@h1/pods")
    monkeypatch.setenv("DATABASE_READ_URL", "postgresql://bob@h2/pods")
    assert resolve(load_settings(), read_only=True) == Database("h2", 5432, "pods", "bob")
