"""Reading what the API answered: paths into JSON, absent is empty (pure)."""

from __future__ import annotations

import json
from typing import cast


class Document:
    """One JSON object; `text("Spec.Name")` and the like never fail on what is absent."""

    def __init__(self, value: object) -> None:
        self._value = value

    def raw(self) -> object:
        """Return the decoded JSON itself."""
        return self._value

    def get(self, path: str) -> object:
        """Return the value at a dotted path, None when it is absent; the empty path is all."""
        value = self._value
        for key in path.split(".") if path else ():
            if not isinstance(value, dict):
                return None
            value = cast("dict[str, object]", value).get(key)
        return value

    def text(self, path: str) -> str:
        """Return a string; empty when absent."""
        value = self.get(path)
        return value if isinstance(value, str) else ""

    def number(self, path: str) -> int:
        """Return a number; 0 when absent."""
        value = self.get(path)
        return int(value) if isinstance(value, int | float) else 0

    def flag(self, path: str) -> bool:
        """Return a boolean; False when absent."""
        return self.get(path) is True

    def at(self, path: str) -> Document:
        """Return the document at a path."""
        return Document(self.get(path))

    def items(self, path: str = "") -> list[Document]:
        """Return a list of documents; empty when absent."""
        value = self.get(path)
        if not isinstance(value, list):
            return []
        return [Document(item) for item in cast("list[object]", value)]

    def texts(self, path: str) -> list[str]:
        """Return a list of strings; empty when absent."""
        return [item.text("") for item in self.items(path)]

    def fields(self, path: str = "") -> dict[str, object]:
        """Return the object at a path as a new dict; empty when absent."""
        value = self.get(path)
        return dict(cast("dict[str, object]", value)) if isinstance(value, dict) else {}


def decode(body: bytes) -> Document:
    """Return the document in a response body. Raises ValueError: it is no JSON."""
    return Document(json.loads(body))
