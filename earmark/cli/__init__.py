"""The command line ``earmark``: a module a group of commands, put together here.

What lives here: commands, options and what they print. The work is in the rooms beside; slow imports (dbt, polars)
are made by the commands that need them, so that help is quick.
"""

import io
import sys

import psycopg
import typer

from earmark.cli import database, journeys, listeners, lists, methodology, programs, run, status, steps, tenants
from earmark.cli.console import err, fail
from earmark.errors import EarmarkError

app = typer.Typer(
    name="earmark",
    help="Podcast campaign attribution you can audit, from the raw request to the return on ad spend.\n\n"
    "Start with [bold]earmark run[/bold]: it starts PostgreSQL, migrates, loads what is in the landing folder "
    "(made-up data where there is none), builds the models and shows the campaigns.",
    epilog="Exit codes: 0 done, 1 something failed or a file was refused, 2 the command line is wrong.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for commands in (run.app, steps.app, status.app, database.app, methodology.app, journeys.app, programs.app):
    app.add_typer(commands)
for plugin in listeners.plugins():
    app.add_typer(plugin.app)
app.add_typer(database.db, name="db")
app.add_typer(tenants.tenant, name="tenant")
app.add_typer(lists.agents, name="agents")
app.add_typer(lists.networks, name="networks")


def main() -> None:
    """Run the command line; a user's mistake ends in one clear line, never in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may hold bytes that are no text
    try:
        app()
    except EarmarkError as error:
        fail(str(error))
    except psycopg.errors.UndefinedTable as error:
        fail(f"{error.diag.message_primary}: the database is not migrated; run: earmark migrate")
    except psycopg.errors.InsufficientPrivilege as error:
        fail(f"the database refused ({error.diag.message_primary}): let its owner run this, or grant the right")
    except psycopg.errors.UndefinedFile as error:
        fail(
            f"the server misses a library ({error.diag.message_primary}): install it again and restart the server"
        )
    except psycopg.errors.DiskFull as error:
        fail(
            f"the disk of the database is full ({error.diag.message_primary}): make room and run the command "
            "again; what was not finished is rolled back, nothing is lost"
        )
    except psycopg.OperationalError as error:
        fail(f"the database went away: {' '.join(str(error).split())}")
    except OSError as error:
        if error.errno is None:
            raise
        fail(f"{error.filename or 'a file'} cannot be used ({error.strerror})")
    except KeyboardInterrupt:
        err.print("stopped")
        sys.exit(130)
