"""Order exports of shops, as they are: Shopify's orders (CSV), WooCommerce's order export (CSV).

An order that was paid is a purchase, identified by the shop's own id, so that a later export of the same order
is a duplicate; its value is what was charged, less what was refunded. An order that is not paid, cancelled or
refunded whole is refused with that reason: once a later export says that it was paid, it loads. Shopify writes an
order's further line items as rows of their own without a total: they are no orders. The e-mail address is hashed
(SHA-256 of its lower case); names, postal addresses and phone numbers are left out, of rejects too.

Shopify's times have an offset; WooCommerce's have none and are read as UTC. Columns: help.shopify.com (Exporting
orders), woocommerce.com (Import and Export of WooCommerce Orders).
"""

from collections.abc import Mapping
from typing import Final

import polars as pl

from earmark.addresses.emails import sha256_of_email
from earmark.ingestion.formats import LINE, Format, Head, Shape
from earmark.ingestion.sources.source import ORIGINAL, PROBLEM, UNIQUE_ID, Context, Source, dash_to_null

_SHOPIFY: Final = frozenset({"Name", "Financial Status", "Total", "Created at", "Lineitem name"})
_SHOPIFY_PAID: Final = ("paid", "partially_paid", "partially_refunded")
_WOOCOMMERCE: Final = frozenset({"order_id", "order_date", "status", "order_total", "order_currency"})
_WOOCOMMERCE_PAID: Final = ("processing", "completed")
_COUPON: Final = r"(?:^|;)\s*(?:code:)?([^|;]+)"


def _has_columns(head: Head, names: frozenset[str]) -> bool:
    return head.format is Format.DELIMITED and names <= set(head.columns)


def _texts(frame: pl.DataFrame, *optional: str) -> pl.DataFrame:
    """Return the frame as text, empty text null, with those columns that it lacks."""
    frame = frame.with_columns(
        pl.lit(None, pl.String).alias(name) for name in optional if name not in frame.columns
    )
    names = [name for name in frame.columns if name != LINE]
    return frame.with_columns(pl.col(names).cast(pl.String).str.strip_chars()).with_columns(dash_to_null(*names))


def _email(frame: pl.DataFrame, column: str) -> pl.Series:
    texts = frame[column].to_list()
    return pl.Series("hashed_email", [text and sha256_of_email(text) for text in texts], dtype=pl.String)


def _less(total: pl.Expr, refunded: pl.Expr) -> pl.Expr:
    """Return an amount less what was refunded, to the cent; the total as it stands where it is no plain number."""
    plain = r"^\d+(?:\.\d+)?$"
    amounts = [amount.cast(pl.Decimal(38, 4), strict=False) for amount in (total, refunded)]
    both = total.str.contains(plain) & refunded.str.contains(plain)
    return pl.when(both).then((amounts[0] - amounts[1]).cast(pl.String)).otherwise(total)


def _shopify(frame: pl.DataFrame, context: Context) -> Mapping[str, pl.DataFrame]:
    optional = ("Id", "Email", "Paid at", "Currency", "Discount Code", "Cancelled at", "Refunded Amount", "Source")
    rows = _texts(frame, *_SHOPIFY, *optional)
    is_order = pl.col("Total").is_not_null() | pl.col("Financial Status").is_not_null()
    rows = rows.filter(is_order | pl.col("Lineitem name").is_null())
    status = pl.col("Financial Status")
    rows = rows.select(
        LINE,
        pl.coalesce("Paid at", "Created at").alias("occurred_at"),
        pl.lit("purchase").alias("action"),
        _type(pl.col("Discount Code")),
        pl.col("Name").alias("order_number"),
        _less(pl.col("Total"), pl.col("Refunded Amount")).alias("value"),
        pl.col("Currency").alias("currency"),
        pl.col("Discount Code").alias("discount_code"),
        _email(rows, "Email"),
        status.alias("financial_status"),
        pl.col("Source").alias("sold_by"),
        pl.concat_str(pl.lit("shopify order "), pl.coalesce("Id", "Name")).alias(UNIQUE_ID),
        _original("Name", "Financial Status", "Paid at", "Created at", "Currency", "Total", "Cancelled at"),
        pl.when(pl.col("Cancelled at").is_not_null())
        .then(pl.format("the order was cancelled at {}: it is no conversion", "Cancelled at"))
        .when(~status.is_in(_SHOPIFY_PAID).fill_null(value=False))
        .then(_unpaid(status))
        .alias(PROBLEM),
    )
    return {context.dataset: rows}


def _woocommerce(frame: pl.DataFrame, context: Context) -> Mapping[str, pl.DataFrame]:
    optional = (
        *("order_number", "paid_date", "customer_email", "billing_email", "coupon_items"),
        *("customer_ip_address", "customer_user_agent", "refunded_total"),
    )
    rows = _texts(frame, *_WOOCOMMERCE, *optional)
    rows = rows.with_columns(
        pl.coalesce("billing_email", "customer_email").alias("_email"),
        pl.col("status").str.to_lowercase().str.strip_prefix("wc-"),
        pl.col("coupon_items")
        .str.extract_all(_COUPON)
        .list.eval(pl.element().str.strip_chars("; ").str.strip_prefix("code:"))
        .list.join(", ")
        .alias("_codes"),
    )
    rows = rows.with_columns(dash_to_null("_codes"))
    rows = rows.select(
        LINE,
        _local_time(pl.coalesce("paid_date", "order_date")).alias("occurred_at"),
        pl.lit("purchase").alias("action"),
        _type(pl.col("_codes")),
        pl.coalesce("order_number", "order_id").alias("order_number"),
        _less(pl.col("order_total"), pl.col("refunded_total")).alias("value"),
        pl.col("order_currency").alias("currency"),
        pl.col("_codes").alias("discount_code"),
        _email(rows, "_email"),
        pl.col("customer_ip_address").alias("ip"),
        pl.col("customer_user_agent").alias("user_agent"),
        pl.col("status").alias("order_status"),
        pl.concat_str(pl.lit("woocommerce order "), "order_id").alias(UNIQUE_ID),
        _original(
            "order_id", "order_number", "status", "order_date", "paid_date", "order_total", "order_currency"
        ),
        pl.when(~pl.col("status").is_in(_WOOCOMMERCE_PAID).fill_null(value=False))
        .then(_unpaid(pl.col("status")))
        .alias(PROBLEM),
    )
    return {context.dataset: rows}


def _type(codes: pl.Expr) -> pl.Expr:
    """Return what shows where an order comes from: a code, else nothing that a browser has sent."""
    return pl.when(codes.is_null()).then(pl.lit("offline")).otherwise(pl.lit("promo_code")).alias("type")


def _original(*names: str) -> pl.Expr:
    """Return what a reject may keep of an order's row: the rest of it is about a person."""
    shown = [pl.concat_str(pl.lit(f"{name}: "), name) for name in names]
    return pl.concat_str(shown, separator=", ", ignore_nulls=True).alias(ORIGINAL)


def _unpaid(status: pl.Expr) -> pl.Expr:
    return pl.format("the order's status is {}, not paid: it is no conversion", status.fill_null("empty"))


def _local_time(text: pl.Expr) -> pl.Expr:
    """Read ``9/6/2016 6:29:00`` (month first, as the export writes) as ISO 8601; other text stays as it is."""
    american = text.str.to_datetime("%m/%d/%Y %H:%M:%S", strict=False).dt.strftime("%Y-%m-%dT%H:%M:%S")
    return pl.coalesce(american, text)


SHOPIFY: Final = Source(
    name="shopify",
    datasets=("attribution_events",),
    shape=Shape.RECORDS,
    looks_like="Shopify's export of orders (CSV with Name, Financial Status, Total, Created at, Lineitem name)",
    sniff=lambda head: _has_columns(head, _SHOPIFY),
    rows=_shopify,
)
WOOCOMMERCE: Final = Source(
    name="woocommerce",
    datasets=("attribution_events",),
    shape=Shape.RECORDS,
    looks_like="WooCommerce's order export (CSV with order_id, order_date, status, order_total, order_currency)",
    sniff=lambda head: _has_columns(head, _WOOCOMMERCE),
    rows=_woocommerce,
)
