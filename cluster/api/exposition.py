"""Numbers as Prometheus reads them: text format 0.0.4, and OpenMetrics 1.0 (pure).

A `Metric` says once what a number is and how it is read from what a component counts; `collect`
reads it, `render` prints it. So the list of metrics is there without anything that counts: the
documentation is checked against it.

prometheus_client would not make it shorter: our numbers live in the components that count, so of
its registry and its live metrics only the rendering below would be used.

Sources: prometheus.io/docs/instrumenting/exposition_formats, OpenMetrics 1.0 (RFC draft), naming:
prometheus.io/docs/practices/naming.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import Generic, TypeVar

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SUFFIX = {"counter": "_total", "info": "_info"}


class Kind(StrEnum):
    """What may be done with a number."""

    COUNTER = "counter"
    """Grows until what counts ends."""
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"
    """Is 1; its labels tell."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often which size was seen."""

    bounds: tuple[float, ...]
    """Upper bounds, rising."""
    counts: tuple[int, ...]
    """Of each bucket alone; one more than bounds: the last is for what is above them all."""
    total: float
    """Sum of all that was seen."""


Value = float | Histogram
Values = Value | Mapping[str, Value] | Mapping[tuple[str, str], Value]
"""One value; or one for each value of the label, or of the two labels in order."""
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Metric(Generic[S]):
    """One metric, read from a component's numbers `S`."""

    kind: Kind
    name: str
    help: str
    read: Callable[[S], Values]
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = (self.name, *self.labels)
        suffix = next((s for s in _SUFFIX.values() if self.name.endswith(s)), "")
        if suffix != _SUFFIX.get(self.kind, "") or not all(map(_NAME.fullmatch, names)):
            raise ValueError(f"{self.name} is no name for a {self.kind}")


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with its values now."""

    kind: Kind
    name: str
    help: str
    samples: tuple[tuple[tuple[tuple[str, str], ...], Value], ...]
    """Pairs of labels and value."""


def collect(metrics: Iterable[Metric[S]], numbers: S) -> list[Family]:
    """Return the metrics with their values in `numbers`."""
    return [Family(m.kind, m.name, m.help, tuple(_samples(m, m.read(numbers)))) for m in metrics]


def render(families: Iterable[Family], *, is_open: bool = False) -> str:
    """Return what a scraper reads; `is_open`: as OpenMetrics. Families have distinct names."""
    lines = [line for family in families for line in _lines(family, is_open=is_open)]
    if is_open:
        lines.append("# EOF")
    return "\n".join(lines) + "\n"


def _samples(
    metric: Metric[S], values: Values
) -> Iterator[tuple[tuple[tuple[str, str], ...], Value]]:
    if not isinstance(values, Mapping):
        yield (), values
        return
    for key, value in values.items():
        texts = (key,) if isinstance(key, str) else key
        yield tuple(zip(metric.labels, texts, strict=True)), value


def _lines(family: Family, *, is_open: bool) -> Iterator[str]:
    name, kind = family.name, family.kind.value
    if is_open:
        name = name.removesuffix(_SUFFIX.get(family.kind, ""))
    elif family.kind is Kind.INFO:
        kind = "gauge"
    yield f"# HELP {name} {_escape(family.help, is_quoted=is_open)}"
    yield f"# TYPE {name} {kind}"
    for labels, value in family.samples:
        if isinstance(value, Histogram):
            yield from _histogram_lines(family.name, labels, value)
        else:
            yield f"{family.name}{_labels(labels)} {_number(value)}"


def _histogram_lines(
    name: str, labels: Sequence[tuple[str, str]], value: Histogram
) -> Iterator[str]:
    sums = list(accumulate(value.counts))
    for bound, count in zip((*value.bounds, math.inf), sums, strict=True):
        yield f"{name}_bucket{_labels([*labels, ('le', _number(float(bound)))])} {count}"
    yield f"{name}_sum{_labels(labels)} {_number(value.total)}"
    yield f"{name}_count{_labels(labels)} {sums[-1]}"


def _labels(labels: Sequence[tuple[str, str]]) -> str:
    if not labels:
        return ""
    pairs = [f'{name}="{_escape(value, is_quoted=True)}"' for name, value in labels]
    return f"{{{','.join(pairs)}}}"


def _escape(text: str, *, is_quoted: bool) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if is_quoted else text


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)
