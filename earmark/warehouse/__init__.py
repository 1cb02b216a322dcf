"""The database: where it is (``database``, ``embedded``), its schema (``migrations``), its refresh."""
