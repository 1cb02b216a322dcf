"""Dagster's view of the work: ``assets``, ``checks``, ``sensors`` and the ``resources`` they use.

Nothing is computed in here: every asset and sensor calls the library ``earmark``.
"""
