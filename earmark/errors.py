"""What users are told in a sentence instead of a traceback."""


class EarmarkError(Exception):
    """Something that its user can mend. The text says what is wrong, where, and what to do; it holds no secret."""
