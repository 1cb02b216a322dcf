"""``earmark tenant``: who the rows belong to, and how their downloads are counted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import psycopg
import typer
from rich.markup import escape
from rich.table import Table

from earmark.addresses.site import hash_key
from earmark.cli.console import Json, fail, note, open_database, out, print_json
from earmark.settings import load_settings

tenant = typer.Typer(help="Tenants: who the rows belong to.", no_args_is_help=True)


@tenant.command(name="add")
def tenant_add(
    tenant_id: Annotated[str, typer.Argument(help="Its id, and the name of its landing folder.")],
    name: Annotated[str | None, typer.Option(help="Its name, as people read it.")] = None,
) -> None:
    """Register a tenant. Again with another name: renames it."""
    settings = load_settings()
    with open_database(settings).connect(autocommit=True) as connection:
        try:
            connection.execute(
                "insert into tenancy.tenants (tenant_id, name) values (%s, %s) "
                "on conflict (tenant_id) do update set name = excluded.name",
                (tenant_id, name or tenant_id),
            )
        except psycopg.errors.CheckViolation:
            fail(f"{tenant_id!r} is no tenant id: lower-case letters, digits, - and _, 63 at most")
    out.print(f"tenant {tenant_id}; its files go to {settings.landing_root}/{tenant_id}/", soft_wrap=True)


@tenant.command(name="list")
def tenant_list(json_: Json = False) -> None:
    """Show the tenants."""
    with open_database(load_settings(), read_only=True).connect(read_only=True) as connection:
        rows = connection.execute("select tenant_id, name from tenancy.tenants order by 1").fetchall()
    if json_:
        print_json([{"tenant_id": tenant_id, "name": name} for tenant_id, name in rows])
        return
    table = Table("tenant", "name")
    for row in rows:
        table.add_row(*row)
    out.print(table)


@tenant.command(name="set")
def tenant_set(
    tenant_id: Annotated[str, typer.Argument(metavar="TENANT", help="Its id.")],
    pairs: Annotated[
        list[str],
        typer.Argument(metavar="NAME=VALUE...", help="download_window=rolling_first and so on."),
    ],
    json_: Json = False,
) -> None:
    """Set how a tenant's downloads are counted; the next refresh counts all of its days again.

    download_window: calendar_day, rolling_first or rolling_last.
    counts_unknown_threshold, discards_data_centers, discards_vpns: true or false.
    assumed_bitrate_bps: 8000 to 2000000, or none.
    max_daily_downloads_per_address: 1 or more.
    counted_sources: such as nginx,op3, or none for all.
    """
    from earmark.counting import tenants

    try:
        values = tenants.parse_settings(pairs)
    except tenants.TenantSettingError as error:
        raise typer.BadParameter(str(error)) from None
    with open_database(load_settings()).connect() as connection:
        changed = tenants.change_settings(connection, tenant_id, values)
        settings = tenants.read_settings(connection, tenant_id)
        sources = values.get("counted_sources")
        unseen = tenants.unseen_sources(connection, tenant_id, sources) if isinstance(sources, list) else []
    if unseen:
        note(f"nothing of {', '.join(unseen)} is loaded for {tenant_id} yet")
    if json_:
        print_json({"tenant_id": tenant_id, "changed": changed, "settings": settings})
        return
    out.print(_settings_table(tenant_id, settings))
    if changed:
        out.print(f"the next refresh counts all days of {tenant_id} again: earmark build")
    else:
        out.print("nothing changed")


@tenant.command(name="show")
def tenant_show(
    tenant_id: Annotated[str, typer.Argument(metavar="TENANT", help="Its id.")],
    json_: Json = False,
) -> None:
    """Show how a tenant's downloads are counted, and its safe addresses (as hashes)."""
    from earmark.counting import tenants

    with open_database(load_settings(), read_only=True).connect(read_only=True) as connection:
        settings = tenants.read_settings(connection, tenant_id)
        safe = tenants.read_safe_addresses(connection, tenant_id)
    if json_:
        addresses = [asdict(item) for item in safe]
        print_json({"tenant_id": tenant_id, "settings": settings, "safe_addresses": addresses})
        return
    out.print(_settings_table(tenant_id, settings))
    if safe:
        table = Table("safe address (hash)", "until", "reason", title_justify="left")
        for item in safe:
            table.add_row(item.household_key, str(item.expires_on), escape(item.reason))
        out.print(table)


@tenant.command(name="safe-address")
def tenant_safe_address(
    tenant_id: Annotated[str, typer.Argument(metavar="TENANT", help="Its id.")],
    address: Annotated[str, typer.Argument(help="The address, such as 192.0.2.1; only its hash is stored.")],
    until: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The UTC day it expires; it is safe on the days before."),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Who the people behind it are.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take it back.")] = False,
) -> None:
    """Say that an address is many people, such as an office: neither its volume nor its network discards them.

    IPv6 addresses are safe as a /64, as they are counted.
    """
    from earmark.counting import tenants

    if remove and (until is not None or reason is not None):
        raise typer.BadParameter("--remove goes alone")
    if not remove and (until is None or reason is None):
        raise typer.BadParameter("--until and --reason are needed: such an exception has an end and a ground")
    settings = load_settings()
    key = hash_key(settings)
    with open_database(settings).connect() as connection:
        if until is None or reason is None:
            tenants.remove_safe_address(connection, key, tenant_id, address)
        else:
            tenants.add_safe_address(connection, key, tenant_id, address, until.date(), reason)
    done = "the address is not safe any more" if remove else "the address is safe; only its hash is stored"
    out.print(f"{done}. The next refresh counts all days of {tenant_id} again: earmark build", soft_wrap=True)


def _settings_table(tenant_id: str, settings: Mapping[str, Any]) -> Table:
    table = Table(
        "setting", "value", title=f"How downloads of {escape(tenant_id)} are counted", title_justify="left"
    )
    for name, value in settings.items():
        shown = ",".join(value) if isinstance(value, list) else json.dumps(value).strip('"')
        table.add_row(name, escape("none" if value is None else shown))
    return table
