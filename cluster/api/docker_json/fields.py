"""Typed, checked reading of one JSON object whose keys `canonical` has put in order (pure).

Invariants: every failure is an `Invalid` that names the path of the value; absent and null are the
same; nothing is converted silently.
"""

from __future__ import annotations

from typing import cast

import msgspec

from cluster.model.errors import Invalid

Json = dict[str, object]

INT64_MAX = 2**63 - 1
UINT64_MAX = 2**64 - 1
DEPTH_MAX = 64
"""Nesting of a request body; the deepest legitimate one has 9 levels."""


def decode_object_untrusted(body: bytes) -> Json:
    """Return the JSON object that a client sent.

    Raises:
        Invalid: it is empty, not JSON, no object, or nested too deep.
    """
    if not body.strip():
        raise Invalid("invalid JSON: got EOF while reading request body")
    try:
        value: object = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"invalid JSON: {error}") from None
    decoded = as_object(value)
    if decoded is None:
        raise Invalid(f"invalid JSON: an object is expected, not {_kind(value)}")
    _check_depth(decoded)
    return decoded


def as_object(value: object) -> Json | None:
    """Return decoded JSON as an object, None when it is something else."""
    return cast("Json", value) if isinstance(value, dict) else None


def as_list(value: object) -> list[object] | None:
    """Return decoded JSON as a list, None when it is something else."""
    return cast("list[object]", value) if isinstance(value, list) else None


def _check_depth(value: object) -> None:
    level: list[object] = [value]
    for _ in range(DEPTH_MAX):
        below: list[object] = []
        for item in level:
            below.extend((as_object(item) or {}).values())
            below.extend(as_list(item) or [])
        if not below:
            return
        level = below
    raise Invalid(f"invalid JSON: nested deeper than {DEPTH_MAX} levels")


class Fields:
    """One JSON object, read by key."""

    def __init__(self, value: Json, path: str = "") -> None:
        self._value = value
        self._path = path

    def has(self, key: str) -> bool:
        """Return whether the key has a value other than null."""
        return self._value.get(key) is not None

    def present(self) -> list[str]:
        """Return the keys that have a value."""
        return [k for k, v in self._value.items() if v is not None]

    def raw(self) -> Json:
        """Return the object itself."""
        return self._value

    def path(self, key: str) -> str:
        """Return the path of `key`, for messages."""
        return f"{self._path}.{key}" if self._path else key

    def text(self, key: str, default: str = "") -> str:
        """Return a string."""
        value = self._value.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self._wrong(key, "a string", value)
        if "\0" in value:
            raise Invalid(f"{self.path(key)} contains a NUL character")
        return value

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return a boolean."""
        value = self._value.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, "a boolean", value)
        return value

    def integer(
        self, key: str, default: int = 0, *, minimum: int = 0, maximum: int = INT64_MAX
    ) -> int:
        """Return a whole number within the bounds."""
        value = self._value.get(key)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(key, "a whole number", value)
        if not minimum <= value <= maximum:
            raise Invalid(f"{self.path(key)} must be between {minimum} and {maximum}, not {value}")
        return value

    def seconds(self, key: str, default: float) -> float:
        """Return a duration, which Docker gives in nanoseconds."""
        if not self.has(key):
            return default
        return self.integer(key) / 1e9

    def fields(self, key: str) -> Fields:
        """Return an object; an empty one when absent."""
        return self._object(self._value.get(key), self.path(key))

    def items(self, key: str) -> list[Fields]:
        """Return a list of objects."""
        return [
            self._object(item, f"{self.path(key)}[{i}]") for i, item in enumerate(self._list(key))
        ]

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings."""
        texts: list[str] = []
        for i, item in enumerate(self._list(key)):
            if not isinstance(item, str):
                raise self._wrong(f"{key}[{i}]", "a string", item)
            if "\0" in item:
                raise Invalid(f"{self.path(key)}[{i}] contains a NUL character")
            texts.append(item)
        return tuple(texts)

    def text_map(self, key: str) -> dict[str, str]:
        """Return an object of strings."""
        inner = self.fields(key)
        return {name: inner.text(name) for name in inner.raw()}

    def _list(self, key: str) -> list[object]:
        value = self._value.get(key)
        if value is None:
            return []
        items = as_list(value)
        if items is None:
            raise self._wrong(key, "a list", value)
        return items

    def _object(self, value: object, path: str) -> Fields:
        if value is None:
            return Fields({}, path)
        inner = as_object(value)
        if inner is None:
            raise Invalid(f"invalid JSON: {path} must be an object, not {_kind(value)}")
        return Fields(inner, path)

    def _wrong(self, key: str, wanted: str, value: object) -> Invalid:
        return Invalid(f"invalid JSON: {self.path(key)} must be {wanted}, not {_kind(value)}")


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case _:
            return "an object"
