"""Public lists of user agents, without a database: their documents, and their patterns for PostgreSQL."""

import json
from pathlib import Path
from typing import Any

import pytest

from earmark.counting.agent_lists import (
    KINDS,
    AgentListError,
    digest_of,
    fetch,
    parse,
    read_folder,
    to_postgres,
)


def documents(**entries: Any) -> dict[str, bytes]:
    """Return a list with these entries; a kind that is not given has one entry that matches little."""
    default = [{"name": "None", "pattern": "^no such thing$"}]
    return {kind: json.dumps({"entries": entries.get(kind, default)}).encode() for kind in KINDS}


@pytest.mark.parametrize(
    ("python", "postgres"),
    [
        (r"^Pod\.Player/\d+[\w.-]", r"^Pod\.Player/\d+[\w.-]"),
        (r"\bPod\B", r"\yPod\Y"),
        (r"[\b]", r"[\b]"),
        (r"\\b", r"\\b"),
        (r"a\x41b[\x41-\x5a]", r"a\u0041b[\u0041-\u005a]"),
        (r"(?P<name>\d+)", r"(\d+)"),
        (r"(?i)pod(?=x)(?!y)(?<=a)(?<!b)(?:z)", r"(?i)pod(?=x)(?!y)(?<=a)(?<!b)(?:z)"),
        (r"x{,3}y{2}z{1,}", r"x{0,3}y{2}z{1,}"),
        (r"[[(]x\[[]]", r"[\[(]x\[[]]"),
        (r"[]x][^]x[]", r"[]x][^]x\[]"),
        (r"[\]x]\b", r"[\]x]\y"),
        (r"(a)\1", r"(a)\1"),
    ],
)
def test_a_pattern_is_translated(python: str, postgres: str) -> None:
    assert to_postgres(python) == postgres


@pytest.mark.parametrize(
    "pattern",
    [r"(?s)a", r"a(?i:b)", r"(?im)a", r"(?P<a>x)(?P=a)", r"\012", r"\0", r"[\1]", r"\N{DASH}"],
)
def test_a_pattern_that_means_something_else_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="PostgreSQL"):
        to_postgres(pattern)


def test_entries_say_what_they_are_and_why_they_are_discarded() -> None:
    entries = parse(
        documents(
            bots=[{"name": "Bot", "pattern": "(?<maker>Bot)/", "examples": ["Bot/1"]}],
            libraries=[
                {"name": "Script", "pattern": "^script", "category": "bot"},
                {"name": "Media", "pattern": "^media"},
            ],
            devices=[
                {"name": "Some iPad", "pattern": "iPad", "category": "mobile"},
                {"name": "Some Phone", "pattern": "Phone", "category": "mobile"},
                {"name": "Some Car", "pattern": "Car", "category": "auto"},
                {"name": "Something", "pattern": "Thing"},
            ],
            referrers=[{"name": "Player", "pattern": "player", "category": "app"}],
        )
    )
    found = {entry.name: (entry.kind, entry.match_order, entry.category, entry.discard_as) for entry in entries}
    assert found["Bot"] == ("bots", 1, "bot", "bot")
    assert found["Script"] == ("libraries", 1, "library", "not_a_player")
    assert found["Media"] == ("libraries", 2, "library", None)
    assert [found[name][2] for name in ("Some iPad", "Some Phone", "Some Car", "Something", "Player")] == [
        "tablet",
        "phone",
        "car",
        "other",
        "app",
    ]
    assert entries[0].pattern == "(Bot)/"


def test_the_digest_is_of_what_classifies() -> None:
    def digest(**changes: Any) -> bytes:
        return digest_of(parse(documents(bots=[{"name": "Bot", "pattern": "^Bot", **changes}])))

    assert digest() == digest(examples=["Bot/1"], description="A bot", svg="bot.svg")
    assert len({digest(), digest(name="Robot"), digest(pattern="^Bot/")}) == 3


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("Bot", "bots.json, entry 2: is no object"),
        ({"pattern": "Bot"}, "bots.json, entry 2: field name is missing"),
        ({"name": "Bot"}, "bots.json, entry 2: field pattern is missing"),
        ({"name": "Bot", "pattern": 7}, "bots.json, entry 2: field pattern is missing or no text"),
        ({"name": "Bot", "pattern": "(Bot"}, r"bots.json, entry 2 \(Bot\): field pattern '\(Bot' cannot be used"),
        ({"name": "Bot", "pattern": "a(?s:b)"}, r"entry 2 \(Bot\): field pattern .* PostgreSQL has no"),
        ({"name": "Bot", "pattern": "Bot|"}, r"entry 2 \(Bot\): field pattern 'Bot\|' matches everything"),
        ({"name": "Bot", "pattern": "B\0t"}, r"entry 2 \(Bot\): holds a zero character"),
        ({"name": "Bot", "pattern": "Bot", "examples": "Bot"}, "field examples is no list of texts"),
        ({"name": "Bot", "pattern": "Bot", "category": 1}, "field category is no text"),
    ],
)
def test_a_wrong_entry_is_named(entry: object, said: str) -> None:
    with pytest.raises(AgentListError, match=said):
        parse(documents(bots=[{"name": "Good", "pattern": "^Good"}, entry]))


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b'{"entries": [', "apps.json: is no JSON"),
        (b"\xff\xfe", "apps.json: is no JSON"),
        (b"[]", "apps.json: holds no list 'entries'"),
        (b'{"entries": []}', "apps.json: holds no list 'entries'"),
    ],
)
def test_a_wrong_document_is_named(document: bytes, said: str) -> None:
    with pytest.raises(AgentListError, match=said):
        parse({**documents(), "apps": document})


def test_a_folder_holds_every_document(tmp_path: Path) -> None:
    for kind, document in documents().items():
        (tmp_path / f"{kind}.json").write_bytes(document)
    assert read_folder(tmp_path) == documents()
    (tmp_path / "devices.json").unlink()
    with pytest.raises(AgentListError, match=r"devices\.json: cannot be read \(No such file"):
        read_folder(tmp_path)


def test_an_address_is_of_the_web() -> None:
    with pytest.raises(AgentListError, match="is no http or https address"):
        fetch("file:///etc")
