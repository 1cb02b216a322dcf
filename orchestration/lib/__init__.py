"""The work itself, free of Dagster: loading (``ingestion``), the database (``warehouse``), ``demo`` data."""
