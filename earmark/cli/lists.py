"""``earmark agents`` and ``earmark networks``: public lists of user agents and of networks."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from earmark.addresses.site import lookups, networks_folder
from earmark.cli.console import Json, err, figure, moment, open_database, out, print_json
from earmark.settings import load_settings

agents = typer.Typer(help="Public lists of user agents: fetch one, show and drop versions.", no_args_is_help=True)
networks = typer.Typer(
    help="Lists of networks (data centres, VPNs): what addresses are looked up in.", no_args_is_help=True
)


@agents.command(name="fetch")
def agents_fetch(
    url: Annotated[
        str | None, typer.Option(help="Where the documents are: URL/bots.json and so on. Without it: opawg's.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="A folder with the documents, instead of a URL.")] = None,
    start: Annotated[
        datetime | None,
        typer.Option(
            "--from", formats=["%Y-%m-%d"], help="Classify from this UTC day on; without it: from today on."
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Fetch opawg's list of user agents and classify by it from a day on. The same content again adds nothing.

    What the list does not know our own patterns decide. A day before today counts anew what was counted: the next
    [bold]earmark build[/bold] does it.
    """
    from earmark import secret_urls
    from earmark.counting import agent_lists

    if url is not None and folder is not None:
        raise typer.BadParameter("give --url or --folder, not both")
    source = str(folder.resolve()) if folder else secret_urls.remember(url or agent_lists.PUBLIC_LIST)
    with err.status(f"fetching {escape(source)}"):
        documents = agent_lists.read_folder(folder) if folder else agent_lists.fetch(source)
        entries = agent_lists.parse(documents)
    with open_database(load_settings()).connect("earmark agents") as connection:
        day = start.date() if start else agent_lists.today()
        installed = agent_lists.install(connection, entries, source=source, start=day)
    if json_:
        print_json(asdict(installed))
    elif not installed.is_new:
        out.print(f"nothing new: {installed.agent_list} has the same content", highlight=False, soft_wrap=True)
    else:
        counts = ", ".join(f"{count} {kind}" for kind, count in installed.counts.items())
        out.print(f"{installed.agent_list}: {counts}", highlight=False, soft_wrap=True)
        _say_days(installed.days)


@agents.command(name="list")
def agents_list(json_: Json = False) -> None:
    """Show the versions, and the days that each classifies. Before the first, our own patterns do."""
    from earmark.counting import agent_lists

    with open_database(load_settings(), read_only=True).connect(read_only=True) as connection:
        versions = agent_lists.versions(connection)
    if json_:
        print_json([asdict(version) for version in versions])
        return
    table = Table("agent list", "from", "until", "entries", "source", "fetched at")
    for version in versions:
        until = version.effective_until.isoformat() if version.effective_until else "-"
        entries = figure(sum(version.counts.values()))
        fetched_at = moment(version.fetched_at)
        table.add_row(
            version.agent_list, version.effective_from.isoformat(), until, entries, version.source, fetched_at
        )
    out.print(table if versions else "no public list: our own patterns classify; earmark agents fetch gets one")


@agents.command(name="drop")
def agents_drop(
    agent_list: Annotated[str, typer.Argument(help="The version, as earmark agents list shows it.")],
    json_: Json = False,
) -> None:
    """Take a version back: its days are classified by the version before, or by our own patterns."""
    from earmark.counting import agent_lists

    with open_database(load_settings()).connect("earmark agents") as connection:
        days = agent_lists.drop(connection, agent_list)
    if json_:
        print_json({"agent_list": agent_list, "days": days})
    else:
        out.print(f"{agent_list} is dropped", highlight=False, soft_wrap=True)
        _say_days(days)


@networks.command(name="fetch")
def networks_fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Only these lists, such as aws oracle.")] = None,
    json_: Json = False,
) -> None:
    """Fetch the lists that cloud providers and others publish into <EARMARK_HOME>/networks/.

    Files that are loaded from then on are looked up in them. EARMARK_NETWORK_URLS names mirrors. Lists of your own
    go into the same folder: CSV with the columns network, kind (data_center or vpn), operator and note.

    x4bnet_vpn, and x4bnet_vpn_ipv6 beside it, are fetched only by name: the list holds Apple's Private Relay,
    behind which there are listeners, and their downloads would be discarded.
    """
    from earmark.addresses.public_networks import fetch_lists

    settings = load_settings()
    with err.status("fetching"):
        results = fetch_lists(networks_folder(settings), settings.network_urls, names)
    version = lookups(settings).networks.version
    if json_:
        print_json({"lists": [asdict(result) for result in results], "version": version})
    else:
        table = Table("list", "from")
        table.add_column("ranges", justify="right")
        for result in results:
            table.add_row(result.name, result.url, "-" if result.failed else figure(result.ranges))
        out.print(table)
        out.print(f"in use: {version}", highlight=False, soft_wrap=True)
    failed = [result.failed for result in results if result.failed]
    for text in failed:
        err.print(f"[bold red]not fetched[/bold red] {escape(text)}; its file is as it was", soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _say_days(days: int) -> None:
    if days:
        out.print(f"{days} days of tenants are counted anew by the next earmark build", highlight=False)
