"""What Dagster sees of earmark, and nothing else.

``definitions`` composes the code location, ``defs/`` holds its assets, sensors, checks and resources,
``command_line`` what Dagster adds to ``earmark``. Nothing is computed here, the library does that. Importing
touches no network, no database and no file outside the two packages.
"""
