"""What can be wrong with journeys or with what is asked of them. How a file itself can be bad is not here."""

from earmark.errors import EarmarkError


class AttributionError(EarmarkError):
    """Nothing can be credited. The text names the file, row and field where there are such, and what to do."""
