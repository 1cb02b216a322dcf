"""How a tenant's downloads are counted: its settings, and addresses that are known to be many people.

The settings are columns of ``tenancy.tenants``; what each of them means is in the column's comment. A change notes
every day of the tenant as changed, so that the next refresh counts them again. How requests are counted by them is
in the models.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

import psycopg
from psycopg import sql

from earmark.addresses.privacy import HashKey, canonical_address
from earmark.errors import EarmarkError
from earmark.ingestion.errors import UnknownTenantError
from earmark.ingestion.load import check_hash_key

Value = bool | int | str | list[str] | None

_TRUE: Final = frozenset(("true", "yes", "on", "1"))
_FALSE: Final = frozenset(("false", "no", "off", "0"))
_LARGEST: Final = 2**31 - 1  # of an integer column


class TenantSettingError(EarmarkError):
    """A setting or address of a tenant is wrong. The text says what is allowed."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting: how its text is read (ValueError where it is wrong), and what is allowed in words."""

    read: Callable[[str], Value]
    allowed: str
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class SafeAddress:
    """An address that discards nothing until a day. Only its hash is known."""

    household_key: str
    reason: str
    expires_on: date


def _choice(*choices: str) -> Setting:
    def read(text: str) -> Value:
        if text not in choices:
            raise ValueError(text)
        return text

    return Setting(read, ", ".join(choices))


def _truth(text: str) -> Value:
    if text.lower() not in _TRUE | _FALSE:
        raise ValueError(text)
    return text.lower() in _TRUE


def _number(least: int, most: int, allowed: str, *, nullable: bool = False) -> Setting:
    def read(text: str) -> Value:
        number = int(text)
        if not least <= number <= most:
            raise ValueError(text)
        return number

    return Setting(read, allowed, nullable)


def _names(text: str) -> Value:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ValueError(text)
    return list(dict.fromkeys(names))


SETTINGS: Final[dict[str, Setting]] = {
    "download_window": _choice("calendar_day", "rolling_first", "rolling_last"),
    "counts_unknown_threshold": Setting(_truth, "true or false"),
    "assumed_bitrate_bps": _number(8000, 2_000_000, "a whole number from 8000 to 2000000", nullable=True),
    "max_daily_downloads_per_address": _number(1, _LARGEST, f"a whole number from 1 to {_LARGEST}"),
    "discards_data_centers": Setting(_truth, "true or false"),
    "discards_vpns": Setting(_truth, "true or false"),
    "counted_sources": Setting(_names, "names of sources, comma-separated, such as nginx,op3", nullable=True),
}


def parse_settings(pairs: Sequence[str]) -> dict[str, Value]:
    """Read ``name=value`` pairs; ``none`` clears a setting that may be empty.

    Raises:
        TenantSettingError: a pair, a name or a value is wrong.

    """
    found: dict[str, Value] = {}
    for pair in pairs:
        name, is_pair, text = pair.partition("=")
        if not is_pair:
            raise TenantSettingError(f"{pair!r} is no name=value; the names are {', '.join(SETTINGS)}")
        name, text = name.strip(), text.strip()
        setting = SETTINGS.get(name)
        if setting is None:
            raise TenantSettingError(f"there is no setting {name!r}: the settings are {', '.join(SETTINGS)}")
        if name in found:
            raise TenantSettingError(f"{name} is given twice")
        try:
            is_none = setting.nullable and text.lower() == "none"
            found[name] = None if is_none else setting.read(text)
        except ValueError:
            allowed = setting.allowed + (", or none" if setting.nullable else "")
            raise TenantSettingError(f"{name} is {text!r}: allowed is {allowed}") from None
    return found


def read_settings(connection: psycopg.Connection, tenant_id: str) -> dict[str, Value]:
    """Return the settings of a tenant, in the order of ``SETTINGS``.

    Raises:
        UnknownTenantError: there is no such tenant.

    """
    columns = sql.SQL(", ").join(map(sql.Identifier, SETTINGS))
    query = sql.SQL("select {} from tenancy.tenants where tenant_id = %s").format(columns)
    row = connection.execute(query, (tenant_id,)).fetchone()
    if row is None:
        known = connection.execute("select tenant_id from tenancy.tenants order by 1 limit 20").fetchall()
        names = ", ".join(name for (name,) in known) or "none yet; register one: earmark tenant add NAME"
        raise UnknownTenantError(f"there is no tenant {tenant_id!r}: the tenants are {names}")
    return dict(zip(SETTINGS, row, strict=True))


def change_settings(connection: psycopg.Connection, tenant_id: str, values: dict[str, Value]) -> bool:
    """Set settings of a tenant; returns whether any was another before, so that its days are counted again.

    Raises:
        UnknownTenantError: there is no such tenant.

    """
    before = read_settings(connection, tenant_id)
    if all(before[name] == value for name, value in values.items()):
        return False
    changes = sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder()) for name in values
    )
    query = sql.SQL("update tenancy.tenants set {} where tenant_id = %s").format(changes)
    connection.execute(query, (*values.values(), tenant_id))
    return True


def unseen_sources(connection: psycopg.Connection, tenant_id: str, names: Sequence[str]) -> list[str]:
    """Return those sources of which the tenant has loaded nothing."""
    rows = connection.execute(
        "select distinct source from ingest.loads where tenant_id = %s and dataset = 'listener_events'",
        (tenant_id,),
    ).fetchall()
    return sorted(set(names) - {source for (source,) in rows})


def read_safe_addresses(connection: psycopg.Connection, tenant_id: str) -> list[SafeAddress]:
    """Return the safe addresses of a tenant, those that end first first."""
    rows = connection.execute(
        "select encode(household_key, 'hex'), reason, expires_on from tenancy.safe_addresses"
        " where tenant_id = %s order by expires_on, household_key",
        (tenant_id,),
    ).fetchall()
    return [SafeAddress(*row) for row in rows]


def add_safe_address(
    connection: psycopg.Connection, key: HashKey, tenant_id: str, address: str, until: date, reason: str
) -> None:
    """Say of an address that its volume and network discard nothing until a day; only its hash is stored.

    Raises:
        UnknownTenantError: there is no such tenant.
        TenantSettingError: it is no address, the day is over, or there is no reason.
        HashKeyError: the hash key is another than the one used before.

    """
    household = _household(connection, key, tenant_id, address)
    if until <= datetime.now(UTC).date():
        raise TenantSettingError(f"--until is {until}: it is safe on the days before, so give a later day")
    if not reason.strip():
        raise TenantSettingError("--reason is empty: say who these people are, such as 'office of Acme'")
    connection.execute(
        "insert into tenancy.safe_addresses (tenant_id, household_key, reason, expires_on) values (%s, %s, %s, %s)"
        " on conflict (tenant_id, household_key)"
        " do update set reason = excluded.reason, expires_on = excluded.expires_on, added_at = now()",
        (tenant_id, household, reason.strip(), until),
    )


def remove_safe_address(connection: psycopg.Connection, key: HashKey, tenant_id: str, address: str) -> None:
    """Take back that an address is safe.

    Raises:
        UnknownTenantError: there is no such tenant.
        TenantSettingError: it is no address, or was not safe.
        HashKeyError: the hash key is another than the one used before.

    """
    household = _household(connection, key, tenant_id, address)
    removed = connection.execute(
        "delete from tenancy.safe_addresses where tenant_id = %s and household_key = %s", (tenant_id, household)
    ).rowcount
    if not removed:
        raise TenantSettingError("the address is not among the safe ones: earmark tenant show lists them by hash")


def _household(connection: psycopg.Connection, key: HashKey, tenant_id: str, address: str) -> bytes:
    read_settings(connection, tenant_id)
    canonical = canonical_address(address)
    if canonical is None:
        raise TenantSettingError("ADDRESS is no IPv4 or IPv6 address: give one such as 192.0.2.1 or 2001:db8::1")
    check_hash_key(connection, key)
    return key.for_tenant(tenant_id).household(canonical)
