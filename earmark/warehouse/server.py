"""Which database is meant: the one that the settings name, or the embedded server's."""

from collections.abc import Callable
from dataclasses import replace

from earmark.settings import Settings
from earmark.warehouse.database import SSL_OPTIONS, Database


def resolve(
    settings: Settings, *, read_only: bool = False, start: bool = True, say: Callable[[str], None] | None = None
) -> Database:
    """Return the database that the settings mean; starts the embedded server where it is meant and ``start``.

    ``read_only`` prefers the read replica where one is named. ``say`` is told what a start waits for.

    Raises:
        DatabaseUnavailableError: the embedded server is meant and does not start.

    """
    if read_only and settings.database_read_url is not None:
        return Database.from_url(settings.database_read_url.get_secret_value())
    ssl = tuple(
        (option, value) for option in SSL_OPTIONS if (value := getattr(settings, f"postgres_{option}")) is not None
    )
    if settings.database_url is not None:
        database = Database.from_url(settings.database_url.get_secret_value())
        return replace(database, options=tuple(sorted({**dict(ssl), **dict(database.options)}.items())))
    if settings.postgres_host is not None:
        password = settings.postgres_password
        return Database(
            host=settings.postgres_host,
            port=settings.postgres_port,
            name=settings.postgres_database,
            user=settings.postgres_user,
            password=password.get_secret_value() if password is not None else None,
            options=ssl,
        )
    # Only here is the wheel needed: a machine with a server of its own can do without it.
    from earmark.warehouse import embedded

    if not start:
        return embedded.running(settings.home)
    return embedded.start(settings.home, say) if say else embedded.start(settings.home)
