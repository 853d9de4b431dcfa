"""What a configuration key takes: its kinds, their ranges, and how a value written as text is read.

Each maker gives a dataclass field whose metadata holds the Key. Whether keys fit to each other is for sabot.config.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sabot.errors import UsageError
from sabot.wire.addresses import parse_address

Kind = Literal[
    "integer", "seconds", "factor", "bytes", "boolean", "text", "name", "path", "paths", "addresses", "choice", "span"
]
Reading = tuple[Any, str | None]

_UNITS = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(B|KiB|MiB|GiB)?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SPAN = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From `min` to `max`, both included."""

    min: int
    max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key's kind, default and limits."""

    kind: Kind
    default: Any
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()
    auto: bool = False  # "auto" is a value too

    def read(self, value: Any, *, is_text: bool) -> Reading:
        """The value as the configuration holds it, or what is wrong with it; `is_text`: from the environment."""
        if value is None or (is_text and value == "" and self.default is None):
            return (None, None) if self.default is None else (None, f"must be {self.wanted}, not empty")
        if self.auto and value == "auto":
            return "auto", None
        match self.kind:
            case "integer" | "seconds" | "factor" | "bytes":
                reading = self._read_number(value, is_text)
            case "boolean":
                reading = self._read_boolean(value, is_text)
            case "addresses":
                reading = self._read_addresses(value, is_text)
            case "paths":
                reading = self._read_paths(value, is_text)
            case "span":
                reading = self._read_span(value)
            case _:
                reading = self._read_text(value)
        return reading

    @property
    def wanted(self) -> str:
        """The kind in words, with its range."""
        spoken = {
            "integer": f"a whole number from {self.low:g} to {self.high:g}",
            "seconds": f"seconds from {self.low:g} to {self.high:g}",
            "factor": f"a number from {self.low:g} to {self.high:g}",
            "bytes": f"bytes from {format_bytes(int(self.low))} to {format_bytes(int(self.high))} (as 65536 or 64 KiB)",
            "boolean": "true or false",
            "text": "a text",
            "name": "a name: a letter or digit, then at most 62 letters, digits, dots, dashes or underscores",
            "path": "a path",
            "paths": "a list of paths",
            "addresses": "a list of HOST:PORT",
            "choice": f"one of {', '.join(self.choices)}",
            "span": f"{{min: A, max: B}} or A-B, with {self.low:g} <= A <= B <= {self.high:g}",
        }
        return ("auto or " if self.auto else "") + spoken[self.kind]

    def _read_number(self, value: Any, is_text: bool) -> Reading:
        number = value
        if isinstance(value, str):
            if self.kind == "bytes":
                number = _parse_bytes(value)
            elif is_text:
                number = _parse_number(value, whole=self.kind == "integer")
        broken = self.kind in ("seconds", "factor")
        allowed = int | float if broken else int
        if isinstance(number, bool) or not isinstance(number, allowed) or not math.isfinite(number):
            return None, f"must be {self.wanted}, not {value!r}"
        if not self.low <= number <= self.high:
            return None, f"{value} is out of range: must be {self.wanted}"
        return (float(number) if broken else number), None

    def _read_boolean(self, value: Any, is_text: bool) -> Reading:
        if isinstance(value, bool):
            return value, None
        if is_text and value.lower() in _TRUE | _FALSE:
            return value.lower() in _TRUE, None
        return None, f"must be {self.wanted}, not {value!r}"

    def _read_addresses(self, value: Any, is_text: bool) -> Reading:
        items = [item.strip() for item in value.split(",") if item.strip()] if is_text else value
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
            return None, f"must be {self.wanted}, not {value!r}"
        for item in items:
            try:
                parse_address(item)
            except UsageError as error:
                return None, error.message
        return tuple(items), None

    def _read_paths(self, value: Any, is_text: bool) -> Reading:
        items = [item.strip() for item in value.split(",") if item.strip()] if is_text else value
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) and item for item in items):
            return None, f"must be {self.wanted}, not {value!r}"
        return tuple(items), None

    def _read_span(self, value: Any) -> Reading:
        low = high = None
        if isinstance(value, str) and (match := _SPAN.fullmatch(value.strip())):
            low, high = int(match[1]), int(match[2])
        elif isinstance(value, Mapping) and set(value) == {"min", "max"}:
            low, high = value["min"], value["max"]
        if any(isinstance(end, bool) or not isinstance(end, int) for end in (low, high)):
            return None, f"must be {self.wanted}, not {value!r}"
        if not self.low <= low <= high <= self.high:  # type: ignore[operator]  # both are int here
            return None, f"must be {self.wanted}, not {value!r}"
        return Span(min=low, max=high), None  # type: ignore[arg-type]  # as above

    def _read_text(self, value: Any) -> Reading:
        if not isinstance(value, str) or not value:
            return None, f"must be {self.wanted}, not {value!r}"
        fits = {"name": _NAME.fullmatch(value) is not None, "choice": value in self.choices}
        if not fits.get(self.kind, True):
            return None, f"must be {self.wanted}, not {value!r}"
        return value, None


def integer(default: int, low: int, high: int) -> Any:
    return _field(Key(kind="integer", default=default, low=low, high=high))


def seconds(default: float, low: float, high: float) -> Any:
    return _field(Key(kind="seconds", default=default, low=low, high=high))


def factor(default: float, low: float, high: float) -> Any:
    return _field(Key(kind="factor", default=default, low=low, high=high))


def byte_size(default: int, low: int, high: int) -> Any:
    return _field(Key(kind="bytes", default=default, low=low, high=high))


def byte_size_or_auto(default: int | Literal["auto"], low: int, high: int) -> Any:
    return _field(Key(kind="bytes", default=default, low=low, high=high, auto=True))


def boolean(default: bool) -> Any:
    return _field(Key(kind="boolean", default=default))


def text(default: str | None) -> Any:
    return _field(Key(kind="text", default=default))


def name(default: str | None) -> Any:
    return _field(Key(kind="name", default=default))


def path(default: str | None) -> Any:
    return _field(Key(kind="path", default=default))


def paths(default: tuple[str, ...]) -> Any:
    return _field(Key(kind="paths", default=default))


def addresses(default: tuple[str, ...]) -> Any:
    return _field(Key(kind="addresses", default=default))


def span(low: int, high: int) -> Any:
    return _field(Key(kind="span", default=None, low=low, high=high))


def choice(default: str, *choices: str) -> Any:
    return _field(Key(kind="choice", default=default, choices=choices))


def format_bytes(count: int) -> str:
    """65536 -> 64 KiB; the largest unit that divides it."""
    for unit in ("GiB", "MiB", "KiB"):
        if count and count % _UNITS[unit] == 0:
            return f"{count // _UNITS[unit]} {unit}"
    return f"{count} B"


def _field(key: Key) -> Any:
    return field(default=key.default, metadata={"key": key})


def _parse_bytes(value: str) -> int | None:
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        return None
    count = float(match[1]) * _UNITS[match[2] or "B"]
    return int(count) if count.is_integer() else None


def _parse_number(value: str, *, whole: bool) -> float | None:
    try:
        return int(value) if whole else float(value)
    except ValueError:
        return None
