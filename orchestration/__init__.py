"""earmark: podcast campaign attribution you can audit.

``definitions`` composes the Dagster code location, ``defs/`` holds its assets, sensors and checks, ``lib/``
the work itself (no Dagster in there), ``cli`` the command line. Importing touches no network, no database and
no file outside the package.
"""
