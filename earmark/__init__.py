"""earmark: podcast campaign attribution you can audit. The library and its command line; no Dagster in here.

What lives here, each room knowing only those below it:

- ``cli``: the command line.
- ``demo``: made-up data with a planted truth. ``counting``: how requests are counted, and the document of it.
- ``warehouse``: the database, its schema, its refresh.
- ``journeys``: credit by model for journeys, wherever they come from.
- ``ingestion``: from files to rows of schema ``raw``.
- ``addresses``: what is asked of a client's address before only its hash is left.
- ``settings``, ``errors`` and what they stand on.

Importing touches no network, no database and no file outside the package.
"""
