"""Order exports of shops and what nginx collects, as fields of events."""

import hashlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from earmark.addresses.privacy import HashKey
from earmark.ingestion.datasets import DATASETS
from earmark.ingestion.formats import read_blocks, read_head
from earmark.ingestion.load import LoadRequest, resolve
from earmark.ingestion.rows import prepare
from earmark.ingestion.sources import Context

HASHER = HashKey("k", bytes(32)).for_tenant("acme")
SHOPIFY = (
    "Name,Email,Financial Status,Paid at,Currency,Total,Discount Code,Created at,Lineitem quantity,Lineitem name,"
    "Cancelled at,Refunded Amount,Id,Billing Name,Billing Phone\n"
)
WOOCOMMERCE = (
    "order_id,order_number,order_date,paid_date,status,order_total,order_currency,customer_ip_address,"
    "customer_user_agent,billing_email,coupon_items,billing_first_name\n"
)


def load(folder: Path, text: str, source: str | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows as they are staged, and what is wrong with the others."""
    path = folder / "file"
    path.write_text(text)
    head = read_head(path, "file")
    found, dataset, label = resolve(
        LoadRequest("file", "acme", None if source else "attribution_events", source), head
    )
    rows, rejects = [], []
    for block in read_blocks(path, head, found.shape):
        for name, frame in found.rows(block.rows, Context("file", dataset)).items():
            prepared = prepare(DATASETS[name], frame, label, HASHER, block.original)
            rows += prepared.rows.to_dicts()
            rejects += [reject.detail for reject in prepared.rejects]
            assert b"Al," not in b"".join(reject.original or b"" for reject in prepared.rejects)
    return rows, rejects


def collected(**fields: str) -> str:
    line = {
        "collect": "pixel",
        "time": "1795806069.583",
        "request_id": "94fe62774383fd1687dc8b7b6f2efcc3",
        "ip": "192.0.2.7",
        "forwarded_for": "",
        "method": "GET",
        "url": "",
        "query": "",
        "user_agent": "A",
        "referrer": "",
        "byte_range": "",
    }
    return json.dumps(line | fields, separators=(",", ":")) + "\n"


def test_an_order_of_shopify_is_its_first_row_less_what_was_refunded(tmp_path: Path):
    rows, rejects = load(
        tmp_path,
        SHOPIFY
        + "#7,Jo@Example.com ,paid,2026-03-01 23:30:00 -0500,USD,80.10,SAVE,2026-03-01 23:29:00 -0500,1,Cup,,0.00,"
        + "55,Jo,1\n"
        + "#7,Jo@Example.com,,,,,,2026-03-01 23:29:00 -0500,2,Hat,,,,,\n"
        + "#8,,partially_refunded,2026-03-02 10:00:00 +0000,USD,30.00,,2026-03-02 10:00:00 +0000,1,Cup,,10.05,"
        + "56,Al,2\n",
        "shopify",
    )
    assert rejects == []
    seen = [
        (str(row["occurred_at"])[:19], row["type"], Decimal(row["value"]), row["discount_code"]) for row in rows
    ]
    assert seen == [
        ("2026-03-02 04:30:00", "promo_code", Decimal("80.10"), "SAVE"),
        ("2026-03-02 10:00:00", "offline", Decimal("19.95"), None),
    ]
    assert rows[0]["hashed_email"] == "\\x" + hashlib.sha256(b"jo@example.com").hexdigest()
    assert "Jo" not in json.dumps(rows, default=str)


@pytest.mark.parametrize(
    ("status", "cancelled", "problem"),
    [
        ("pending", "", "status is pending"),
        ("refunded", "", "status is refunded"),
        ("paid", "2026-03-02 10:00:00 +0000", "cancelled at 2026-03-02"),
    ],
)
def test_what_is_not_paid_is_no_conversion(tmp_path: Path, status: str, cancelled: str, problem: str):
    rows, (reject,) = load(
        tmp_path,
        SHOPIFY + f"#9,,{status},,USD,30.00,,2026-03-02 10:00:00 +0000,1,Cup,{cancelled},0.00,57,Al,2\n",
        "shopify",
    )
    assert not rows
    assert problem in reject


def test_an_order_is_the_same_event_in_a_later_export(tmp_path: Path):
    order = "#9,,paid,,USD,30.00,,2026-03-02 10:00:00 +0000,1,{},,0.00,57,Al,2\n"
    (first,), _ = load(tmp_path, SHOPIFY + order.format("Cup"), "shopify")
    (second,), _ = load(tmp_path, SHOPIFY + order.format("Large cup"), "shopify")
    assert first["event_id"] == second["event_id"]


def test_an_order_of_woocommerce_with_its_codes_and_either_date(tmp_path: Path):
    rows, rejects = load(
        tmp_path,
        WOOCOMMERCE
        + "7,1007,2026-03-01 10:00:00,,wc-completed,50.00,EUR,198.51.100.3,UA,jo@example.com,"
        + "code:save|amount:5.00;code:more|amount:1.00,Jo\n"
        + "8,1008,3/2/2026 6:29:00,,processing,20,EUR,198.51.100.3,UA,,,Jo\n"
        + "9,1009,2026-03-01 10:00:00,,on-hold,20,EUR,,,,,Jo\n",
    )
    assert [(row["order_number"], str(row["occurred_at"])[:19], row["type"]) for row in rows] == [
        ("1007", "2026-03-01 10:00:00", "promo_code"),
        ("1008", "2026-03-02 06:29:00", "offline"),
    ]
    assert "save" in rows[0]["discount_code"]
    assert "more" in rows[0]["discount_code"]
    assert rows[0]["household_key"] is not None
    assert len(rejects) == 1
    assert "on-hold" in rejects[0]


def test_a_pixel_holds_fields_of_events_and_nothing_else(tmp_path: Path):
    rows, rejects = load(
        tmp_path,
        collected(
            query="action=purchase&order_number=%23A%2B1&value=5.50&currency=EUR&email=Jo%40Example.com&name=Jo+Doe",
            url="https://shop.example.com/thanks",
        )
        + collected(request_id="a" * 32, query="action=purchase&value=1&value=2")
        + collected(request_id="b" * 32, collect="vanity", url="https://collect.example.com/go/x"),
    )
    assert [(row["action"], row["type"], row["url"]) for row in rows] == [
        ("purchase", "pixel", "https://shop.example.com/thanks"),
        ("view", "vanity_url", "https://collect.example.com/go/x"),
    ]
    assert rows[0]["hashed_email"] == "\\x" + hashlib.sha256(b"jo@example.com").hexdigest()
    assert "Doe" not in json.dumps(rows, default=str)
    assert "twice" in rejects[0]


def test_a_prefix_sees_requests_and_ranges_but_no_bytes(tmp_path: Path):
    line = collected(collect="prefix", url="https://media.example.com/a.mp3", byte_range="bytes=0-99")
    (row,), _ = load(tmp_path, line, "prefix")
    assert (row["event_type"], row["byte_range"], row["bytes_sent"], row["status"]) == (
        "request",
        "bytes=0-99",
        None,
        None,
    )
    assert row["enclosure_key"] == "media.example.com/a.mp3"
