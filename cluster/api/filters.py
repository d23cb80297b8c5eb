"""The `filters` query parameter (pure).

Clients send `{"name": {"web": true}}` or, older ones, `{"name": ["web"]}`. All keys must match; of
one key's values, any.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cluster.api.docker_json.fields import as_list, as_object
from cluster.model.errors import Invalid


class Filters:
    """A checked set of filters."""

    def __init__(self, wanted: Mapping[str, tuple[str, ...]]) -> None:
        self._wanted = wanted

    def values(self, key: str) -> tuple[str, ...]:
        """Return what the client gave for a key."""
        return self._wanted.get(key, ())

    def exact(self, key: str, *candidates: str) -> bool:
        """Return whether a candidate is among the key's values, or the key is not filtered by."""
        return not self.values(key) or any(c in self.values(key) for c in candidates)

    def prefix(self, key: str, *candidates: str) -> bool:
        """Return whether a candidate starts with one of the key's values."""
        values = self.values(key)
        return not values or any(c.startswith(v) for c in candidates for v in values)

    def contains(self, key: str, *candidates: str) -> bool:
        """Return whether a candidate contains one of the key's values."""
        values = self.values(key)
        return not values or any(v in c for c in candidates for v in values)

    def labels(self, key: str, labels: Mapping[str, str]) -> bool:
        """Return whether the labels have every `name` or `name=value` that was given."""
        for wanted in self.values(key):
            name, equals, value = wanted.partition("=")
            if name not in labels or (equals and labels[name] != value):
                return False
        return True

    def flag(self, key: str) -> bool | None:
        """Return a boolean filter's value, None when it is not filtered by.

        Raises:
            Invalid: it is no boolean.
        """
        values = set(self.values(key))
        if not values:
            return None
        if values <= {"true", "True", "1"}:
            return True
        if values <= {"false", "False", "0"}:
            return False
        raise Invalid(f"invalid filter '{key}={','.join(sorted(values))}'")


def read_filters_untrusted(text: str, allowed: frozenset[str]) -> Filters:
    """Return the filters of a request.

    Raises:
        Invalid: malformed, or a key that this list cannot be filtered by.
    """
    if not text:
        return Filters({})
    try:
        decoded: object = msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"invalid filter: {error}") from None
    value = as_object(decoded)
    if value is None:
        raise Invalid("invalid filter: an object is expected")
    wanted: dict[str, tuple[str, ...]] = {}
    for key, item in value.items():
        if key not in allowed:
            raise Invalid(f"invalid filter '{key}'")
        wanted[key] = _values(key, item)
    return Filters(wanted)


def _values(key: str, item: object) -> tuple[str, ...]:
    by_name = as_object(item)
    if by_name is not None:
        return tuple(name for name, on in by_name.items() if on)
    items = as_list(item)
    if items is None:
        raise Invalid(f"invalid filter '{key}'")
    values = tuple(i for i in items if isinstance(i, str))
    if len(values) != len(items):
        raise Invalid(f"invalid filter '{key}'")
    return values
