"""The one exception of data preparation."""

from __future__ import annotations


class DataError(Exception):
    """Data that is missing, damaged or not what was asked for. The message is one line: which file, what is wrong, what to do."""
