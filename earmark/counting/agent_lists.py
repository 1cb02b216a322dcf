"""Public lists of user agents: fetched when asked for, checked, and kept as versions that days are classified by.

What lives here: reading the list of the Open Podcast Analytics Working Group (opawg/user-agents-v2), its patterns
for PostgreSQL, and its versions in ``ingest.agent_lists`` and ``ingest.agent_patterns``. What does not:
classifying (``models/requests/int_user_agents__classified.sql``) and our own patterns (``seeds/``). No list
comes with the project.
"""

import hashlib
import http.client
import json
import re
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from earmark import secret_urls
from earmark.errors import EarmarkError

PUBLIC_LIST: Final = "https://raw.githubusercontent.com/opawg/user-agents-v2/master/src"
# An agent is what the first of these says that knows it; devices and referrers are looked up apart.
AGENT_KINDS: Final = {"bots": "bot", "apps": "app", "libraries": "library", "browsers": "browser"}
KINDS: Final = (*AGENT_KINDS, "devices", "referrers")
_DEVICES: Final = {"mobile": "phone", "auto": "car"}  # the rest is called as we call it
_MOST_BYTES: Final = 20_000_000
_SECONDS: Final = 30
_JAVASCRIPT_GROUP: Final = re.compile(r"(?<!\\)\(\?<(?=[A-Za-z_])")


class AgentListError(EarmarkError):
    """A list cannot be had or is not what it should be. Nothing of it was installed."""


class UnreachableListError(AgentListError):
    """A list cannot be downloaded; it may be there again in a moment."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a list: ``place`` says where it stands, ``pattern`` is as PostgreSQL reads it."""

    kind: str
    match_order: int
    name: str
    category: str | None
    original: str
    pattern: str
    discard_as: str | None
    examples: tuple[str, ...] = field(repr=False)

    @property
    def place(self) -> str:
        """The file, entry (from 1) and name."""
        return f"{self.kind}.json, entry {self.match_order} ({self.name})"


@dataclass(frozen=True, slots=True)
class Installed:
    """What came of an installation; ``days`` of tenants (a day of two is two) will be counted anew."""

    agent_list: str
    is_new: bool
    counts: dict[str, int]
    days: int


@dataclass(frozen=True, slots=True)
class Version:
    """A version in the database, in effect on the UTC days [``effective_from``, ``effective_until``)."""

    agent_list: str
    effective_from: date
    effective_until: date | None
    source: str
    fetched_at: datetime
    counts: dict[str, int]


def fetch(base: str = PUBLIC_LIST) -> dict[str, bytes]:
    """Download the documents of a list, one a kind, from below a URL.

    Raises:
        UnreachableListError: a document cannot be had.
        AgentListError: the address is none of the web, or a document is far too large.

    """
    base = secret_urls.remember(base)
    if not base.startswith(("https://", "http://")):
        raise AgentListError(f"{base}: is no http or https address; a folder is given with --folder")
    return {kind: _download(f"{base.rstrip('/')}/{kind}.json") for kind in KINDS}


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(secret_urls.real(url), timeout=_SECONDS) as answer:  # noqa: S310  (fetch has looked at the scheme)
            document: bytes = answer.read(_MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise UnreachableListError(
            f"{url}: the server answered {error.code} {error.reason}; try again, or give a copy with --folder"
        ) from secret_urls.cause(error, url)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = secret_urls.without_secrets(error, url)
        raise UnreachableListError(
            f"{url}: cannot be downloaded ({reason}); is this machine online? A copy is given with --folder"
        ) from secret_urls.cause(error, url)
    if len(document) > _MOST_BYTES:
        raise AgentListError(f"{url}: is larger than {_MOST_BYTES} bytes, which no list is")
    return document


def read_folder(folder: Path) -> dict[str, bytes]:
    """Read the documents of a list from a folder: a copy of the list's ``src``.

    Raises:
        AgentListError: a document is missing or cannot be read.

    """
    documents = {}
    for kind in KINDS:
        path = folder / f"{kind}.json"
        try:
            documents[kind] = path.read_bytes()
        except OSError as error:
            raise AgentListError(
                f"{path}: cannot be read ({error.strerror}); a list is a folder with {', '.join(KINDS)} as .json"
            ) from error
    return documents


def parse(documents: Mapping[str, bytes]) -> list[Entry]:
    """Return the entries of a list, in the order in which they are tried, with patterns for PostgreSQL.

    Raises:
        AgentListError: a document is no list, or an entry lacks something or has a pattern that cannot be used.

    """
    return [entry for kind in KINDS for entry in _parse_document(kind, documents[kind])]


def _parse_document(kind: str, document: bytes) -> list[Entry]:
    try:
        parsed = json.loads(document)
    except ValueError as error:
        raise AgentListError(f"{kind}.json: is no JSON ({error}); fetch it again") from error
    given = parsed.get("entries") if isinstance(parsed, dict) else None
    if not isinstance(given, list) or not given:
        raise AgentListError(f"{kind}.json: holds no list 'entries'; is this the list of opawg/user-agents-v2?")
    return [_parse_entry(kind, number, entry) for number, entry in enumerate(given, start=1)]


def _parse_entry(kind: str, number: int, given: object) -> Entry:
    if not isinstance(given, dict):
        raise AgentListError(f"{kind}.json, entry {number}: is no object with name and pattern")
    for name in ("name", "pattern"):
        if not isinstance(given.get(name), str) or not given[name]:
            raise AgentListError(f"{kind}.json, entry {number}: field {name} is missing or no text")
    place = f"{kind}.json, entry {number} ({given['name']})"
    category, examples = given.get("category"), given.get("examples") or []
    if category is not None and not isinstance(category, str):
        raise AgentListError(f"{place}: field category is no text")
    if not isinstance(examples, list) or not all(isinstance(example, str) for example in examples):
        raise AgentListError(f"{place}: field examples is no list of texts")
    if any("\0" in text for text in (given["name"], given["pattern"], category or "", *examples)):
        raise AgentListError(f"{place}: holds a zero character, which PostgreSQL cannot keep")
    original = _JAVASCRIPT_GROUP.sub("(?P<", given["pattern"])
    try:
        compiled = re.compile(original)
        pattern = to_postgres(original)
    except (re.error, ValueError, OverflowError) as error:
        raise AgentListError(f"{place}: field pattern {given['pattern']!r} cannot be used: {error}") from error
    if compiled.search("") and compiled.search("~"):
        raise AgentListError(f"{place}: field pattern {given['pattern']!r} matches everything")
    return Entry(
        kind=kind,
        match_order=number,
        name=given["name"],
        category=_category(kind, given["name"], category),
        original=original,
        pattern=pattern,
        discard_as=_discard_as(kind, category),
        examples=tuple(examples),
    )


def _category(kind: str, name: str, category: str | None) -> str | None:
    if kind == "devices":
        if category == "mobile" and re.search(r"iPad|[Tt]ablet", name):
            return "tablet"
        return _DEVICES.get(category or "", category or "other")
    return AGENT_KINDS.get(kind, category)


def _discard_as(kind: str, category: str | None) -> str | None:
    """Return why requests are discarded: the list marks those libraries as bots that are no players."""
    if kind == "bots":
        return "bot"
    return "not_a_player" if kind == "libraries" and category == "bot" else None


# A set in brackets is one part, and so is whatever does not mean the same to both.
_PART: Final = re.compile(
    r"(?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])|(?P<escape>\\x[0-9a-fA-F]{2}|\\[0-9]{1,3}|\\.)"
    r"|\(\?P<\w+>|\(\?P=\w+\)|\(\?[aiLmsux-]+[:)]|\{,(?=[0-9]+\})",
    re.DOTALL,
)
_PART_OF_SET: Final = re.compile(r"(?P<escape>\\x[0-9a-fA-F]{2}|\\[0-9]|\\.)|(?<!^)\[", re.DOTALL)
_DIGITS: Final = "0123456789"


def to_postgres(pattern: str) -> str:
    r"""Return a regular expression of Python as PostgreSQL reads it.

    Other words for the same are replaced: ``\b``, ``\x41``, names of groups, a bracket in brackets.

    Raises:
        ValueError: it uses something that PostgreSQL has no word for; the text says what.

    """
    return _PART.sub(_translated, pattern)


def _translated(part: re.Match[str]) -> str:
    text = part[0]
    if part["set"]:
        return _PART_OF_SET.sub(
            lambda inner: _escape(inner[0], not_read=_DIGITS) if inner["escape"] else r"\[", text
        )
    if part["escape"]:
        return {r"\b": r"\y", r"\B": r"\Y"}.get(text) or _escape(text, not_read="0")
    if text.startswith("(?P<"):
        return "("
    if text == "{,":
        return "{0,"
    if text == "(?i)" and part.start() == 0:
        return text
    raise ValueError(f"PostgreSQL has no {text} here; it reads (?i) at the beginning, and groups by number")


def _escape(text: str, *, not_read: str) -> str:
    if text.startswith(r"\x"):
        return r"\u00" + text[2:]
    if text[1] == "N" or text[1] in not_read or len(text) == len(r"\012"):
        raise ValueError(f"PostgreSQL reads {text} otherwise; write the character itself")
    return text


def digest_of(entries: Sequence[Entry]) -> bytes:
    """Return the sha256 of what classifies; examples, addresses and icons may change without a new version."""
    rows = [[entry.kind, entry.match_order, entry.name, entry.category, entry.original] for entry in entries]
    marks = [entry.discard_as for entry in entries]
    return hashlib.sha256(json.dumps([rows, marks]).encode()).digest()


def today() -> date:
    """Return the UTC day."""
    return datetime.now(UTC).date()


def install(connection: psycopg.Connection, entries: Sequence[Entry], *, source: str, start: date) -> Installed:
    """Install a list as the one in effect from a UTC day on, in one transaction. Its days are recounted.

    The content that is in effect on that day already adds nothing. Another list from the same day is replaced.

    Raises:
        AgentListError: a pattern is none for PostgreSQL, or finds something else than in Python.

    """
    digest = digest_of(entries)
    counts = {kind: count for kind in KINDS if (count := Counter(entry.kind for entry in entries)[kind])}
    agent_list = f"opawg-{start.isoformat()}-{digest.hex()[:8]}"
    with connection.transaction():
        connection.execute("select pg_advisory_xact_lock(hashtextextended('earmark agent lists', 0))")
        row = connection.execute(
            "select agent_list, digest from ingest.agent_lists where effective_from <= %s"
            " order by effective_from desc limit 1",
            (start,),
        ).fetchone()
        if row is not None and row[1] == digest:
            return Installed(row[0], is_new=False, counts=counts, days=0)
        connection.execute("delete from ingest.agent_lists where effective_from = %s", (start,))
        connection.execute(
            "insert into ingest.agent_lists (agent_list, effective_from, source, digest, counts)"
            " values (%s, %s, %s, %s, %s)",
            (agent_list, start, source, digest, Jsonb(counts)),
        )
        _check_patterns(connection, entries)
        with connection.cursor() as cursor:
            cursor.executemany(
                "insert into ingest.agent_patterns"
                " (agent_list, kind, match_order, name, category, pattern, discard_as)"
                " values (%s, %s, %s, %s, %s, %s, %s)",
                [
                    (agent_list, e.kind, e.match_order, e.name, e.category, e.pattern, e.discard_as)
                    for e in entries
                ],
            )
        _check_examples(connection, agent_list, entries)
        return Installed(agent_list, is_new=True, counts=counts, days=_days_in_effect(connection, start))


def drop(connection: psycopg.Connection, agent_list: str) -> int:
    """Take a version back; its days are classified by the version before, and recounted. Returns their number.

    Raises:
        AgentListError: there is no such version.

    """
    with connection.transaction():
        found = connection.execute(
            "delete from ingest.agent_lists where agent_list = %s returning effective_from", (agent_list,)
        ).fetchone()
        if found is None:
            raise AgentListError(f"there is no agent list {agent_list!r}; see earmark agents list")
        return _days_in_effect(connection, found[0])


def versions(connection: psycopg.Connection) -> list[Version]:
    """Return the versions, the first in effect first."""
    with connection.cursor(row_factory=class_row(Version)) as cursor:
        return cursor.execute(
            "select agent_list, effective_from, lead(effective_from) over (order by effective_from)"
            " as effective_until, source, fetched_at, counts from ingest.agent_lists order by effective_from"
        ).fetchall()


def _days_in_effect(connection: psycopg.Connection, start: date) -> int:
    """Return how many days of tenants a list classifies, or did, that is in effect from a day on."""
    row = connection.execute("select count(*) from ingest.days_of_agent_lists(%s)", ([start],)).fetchone()
    return int(row[0]) if row else 0


def _check_patterns(connection: psycopg.Connection, entries: Sequence[Entry]) -> None:
    for entry in entries:
        try:
            with connection.transaction():
                connection.execute("select '' ~ %s::text", (entry.pattern,))
        except psycopg.errors.InvalidRegularExpression as error:
            raise AgentListError(
                f"{entry.place}: field pattern {entry.original!r} is none for PostgreSQL "
                f"({error.diag.message_primary}); nothing was installed"
            ) from error


_FIRST_MATCHES: Final = """
    select distinct on (found.number) found.number, p.kind, p.match_order
    from ingest.agent_patterns as p
    cross join lateral (
        select e.number from unnest(%(examples)s::text[]) with ordinality as e (example, number)
        where e.example ~ p.pattern
        offset 0
    ) as found
    where p.agent_list = %(agent_list)s and p.kind = any(%(kinds)s)
    order by found.number, array_position(%(kinds)s::text[], p.kind::text), p.match_order
"""


def _check_examples(connection: psycopg.Connection, agent_list: str, entries: Sequence[Entry]) -> None:
    """Let PostgreSQL find the first match of each of the list's own examples, and want what Python finds."""
    agents = {text: entry for entry in entries if entry.kind != "referrers" for text in entry.examples}
    referrers = {text: entry for entry in entries if entry.kind == "referrers" for text in entry.examples}
    for kinds, examples in (([*AGENT_KINDS], agents), (["devices"], agents), (["referrers"], referrers)):
        rows = connection.execute(
            _FIRST_MATCHES, {"examples": [*examples], "agent_list": agent_list, "kinds": kinds}
        ).fetchall()
        found = {number: (kind, match_order) for number, kind, match_order in rows}
        patterns = [
            ((entry.kind, entry.match_order), re.compile(entry.original))
            for entry in entries
            if entry.kind in kinds
        ]
        for number, (text, entry) in enumerate(examples.items(), start=1):
            wanted = next((key for key, pattern in patterns if pattern.search(text)), None)
            if found.get(number) != wanted:
                raise AgentListError(
                    f"{entry.place}: of its example {text!r} PostgreSQL says {_said(found.get(number))}, "
                    f"Python {_said(wanted)}; nothing was installed"
                )


def _said(key: tuple[str, int] | None) -> str:
    return f"{key[0]}.json, entry {key[1]}" if key else "nothing"
