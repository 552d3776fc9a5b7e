"""Documents of the results database as bytes, and back. One text form per document: sorted keys, two spaces, newline at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


class DatabaseError(Exception):
    """The results database cannot be read or written. The message names the file, the field and the mend, on one line."""


def encode(kind: TypeAdapter[T], document: T) -> bytes:
    """The document's only text form. DatabaseError when it holds a number that JSON does not have."""
    values = kind.dump_python(document, mode="json")
    try:
        text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise DatabaseError(f"document cannot be written as JSON: {error}; replace the number by null or correct it") from None
    return text.encode() + b"\n"


def decode(kind: TypeAdapter[T], path: Path) -> T:
    """Read and check one document. DatabaseError when the file is missing, is not JSON, or breaks the schema."""
    try:
        return kind.validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        raise DatabaseError(f"{path}: the file is missing; restore it from version control or a copy") from None
    except OSError as error:
        raise DatabaseError(f"{path}: cannot be read ({error.strerror}); check the file's permissions") from None
    except ValidationError as error:
        raise DatabaseError(f"{path}: {_first_problem(error)}; correct it, or restore the file from version control") from None


def same_field(path: Path, field: str, found: Any, expected: Any) -> None:
    """DatabaseError when a document lies in a place that contradicts one of its fields."""
    if found != expected:
        raise DatabaseError(f"{path}: field {field}: is {found!r} but its folder says {expected!r}; move the file or correct the field")


def _first_problem(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    first = problems[0]
    field = ".".join(str(part) for part in first["loc"]) or "the whole document"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return " ".join(f"field {field}: {first['msg']}{more}".split())
