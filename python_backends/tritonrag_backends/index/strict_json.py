"""JSON objects read strictly: every key that is expected and none besides, every value of its type."""

import json
from collections.abc import Collection
from typing import Any, NoReturn

from tritonrag_client.errors import InternalError, RagError


class StrictObject:
    """A JSON object whose keys are taken one by one; what is wrong is named with the way to it (`segments[0].rows`).

    `error` is the type that is raised, `what` and `advice` frame its message: "WHAT: PLACE is ...; ADVICE".
    """

    def __init__(
        self, value: object, *, place: str, what: str, advice: str, error: type[RagError] = InternalError
    ) -> None:
        self._place, self._what, self._advice, self._error = place, what, advice, error
        if not isinstance(value, dict):
            self._wrong(place or "the file", value, "an object")
        self._left: dict[str, Any] = dict(value)

    def integer(self, key: str, *, least: int = 0, most: int = 2**63 - 1) -> int:
        """A whole number from `least` to `most`; true and false are none."""
        value = self._take(key)
        if type(value) is not int or not least <= value <= most:
            self.fail(key, value, f"a whole number from {least} to {most}")
        return value

    def number_or_none(self, key: str, *, least: float, most: float) -> float | None:
        """A finite number from `least` to `most`, or null."""
        value = self._take(key)
        if value is None:
            return None
        if type(value) not in (int, float) or not least <= value <= most:
            self.fail(key, value, f"null or a number from {least} to {most}")
        return float(value)

    def text(self, key: str, *, allowed: Collection[str] | None = None) -> str:
        """A string that is not empty and, where `allowed` is given, one of those."""
        value = self._take(key)
        if not isinstance(value, str) or not value or (allowed is not None and value not in allowed):
            self.fail(key, value, f"one of {sorted(allowed)}" if allowed else "a string that is not empty")
        return value

    def child(self, key: str) -> "StrictObject":
        """An object inside this one."""
        return self._nested(self._take(key), self._at(key))

    def child_or_none(self, key: str) -> "StrictObject | None":
        """An object inside this one, or None for null."""
        value = self._take(key)
        return None if value is None else self._nested(value, self._at(key))

    def texts_or_none(self, key: str) -> tuple[str, ...] | None:
        """A list of strings that are not empty, or None for null."""
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            self.fail(key, value, "null or a list of strings that are not empty")
        return tuple(value)

    def children(self, key: str) -> list["StrictObject"]:
        """A list of objects."""
        value = self._take(key)
        if not isinstance(value, list):
            self.fail(key, value, "a list")
        return [self._nested(item, f"{self._at(key)}[{i}]") for i, item in enumerate(value)]

    def named_children(self, key: str) -> dict[str, "StrictObject"]:
        """An object of objects."""
        value = self._take(key)
        if not isinstance(value, dict):
            self.fail(key, value, "an object")
        return {name: self._nested(item, f"{self._at(key)}.{name}") for name, item in value.items()}

    def end(self) -> None:
        """No key may be left."""
        if self._left:
            raise self._error(
                f"{self._what}: unknown keys {sorted(self._left)} in {self._place or 'it'}; {self._advice}"
            )

    def fail(self, key: str, value: object, expected: str) -> NoReturn:
        """Raise the error that names the key's place, its value and what was expected."""
        self._wrong(self._at(key), value, expected)

    def _wrong(self, place: str, value: object, expected: str) -> NoReturn:
        raise self._error(f"{self._what}: {place} is {_shortened(value)}, expected {expected}; {self._advice}")

    def _take(self, key: str) -> Any:  # noqa: ANN401 - whatever JSON holds
        if key not in self._left:
            raise self._error(f"{self._what}: {self._at(key)} is missing; {self._advice}")
        return self._left.pop(key)

    def _at(self, key: str) -> str:
        return f"{self._place}.{key}" if self._place else key

    def _nested(self, value: object, place: str) -> "StrictObject":
        return StrictObject(value, place=place, what=self._what, advice=self._advice, error=self._error)


def _shortened(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004 - a line of a terminal
