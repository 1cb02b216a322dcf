"""Credit for conversions: ``reading`` (files), ``paths``, ``models``, ``markov``, ``comparison`` (all of them).

No Dagster and no database in here.
"""
