"""Metrics as text: Prometheus' own parsers read back what was rendered."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric as Parsed
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

from cluster.api.exposition import Histogram, Kind, Metric, Values, collect, render

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def metric(kind: Kind, name: str, values: Values, *labels: str, about: str = "It.") -> Metric[None]:
    return Metric(kind, name, about, lambda _: values, labels)


def samples(families: Iterable[Parsed]) -> Samples:
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def both(*metrics: Metric[None]) -> Samples:
    """Return what both parsers make of the metrics: the same."""
    families = collect(metrics, None)
    text = samples(parse_text(render(families)))
    assert samples(parse_open(render(families, is_open=True))) == text
    return text


def test_text_format() -> None:
    lags = Histogram((0.1, 1.0), (2, 0, 1), 7.5)
    families = collect(
        [
            metric(Kind.COUNTER, "x_sent_bytes_total", 12),
            metric(Kind.GAUGE, "x_members", {"alive": 3, "dead": 0}, "state", about='A "b"\\\n.'),
            metric(Kind.HISTOGRAM, "x_lag_seconds", {"a": lags}, "path"),
            metric(Kind.INFO, "x_build_info", {"1.0": 1}, "version"),
        ],
        None,
    )
    assert (
        render(families)
        == r"""# HELP x_sent_bytes_total It.
# TYPE x_sent_bytes_total counter
x_sent_bytes_total 12
# HELP x_members A "b"\\\n.
# TYPE x_members gauge
x_members{state="alive"} 3
x_members{state="dead"} 0
# HELP x_lag_seconds It.
# TYPE x_lag_seconds histogram
x_lag_seconds_bucket{path="a",le="0.1"} 2
x_lag_seconds_bucket{path="a",le="1.0"} 2
x_lag_seconds_bucket{path="a",le="+Inf"} 3
x_lag_seconds_sum{path="a"} 7.5
x_lag_seconds_count{path="a"} 3
# HELP x_build_info It.
# TYPE x_build_info gauge
x_build_info{version="1.0"} 1
"""
    )


def test_open_metrics_differ_in_names_quotes_and_end() -> None:
    families = collect(
        [
            metric(Kind.COUNTER, "x_bytes_total", 12, about='A "b".'),
            metric(Kind.INFO, "x_build_info", {"1.0": 1}, "version"),
        ],
        None,
    )
    assert (
        render(families, is_open=True)
        == r"""# HELP x_bytes A \"b\".
# TYPE x_bytes counter
x_bytes_total 12
# HELP x_build It.
# TYPE x_build info
x_build_info{version="1.0"} 1
# EOF
"""
    )


_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=8)


@given(_texts, st.dictionaries(_texts, st.floats(min_value=0) | st.integers(0, 2**53), max_size=4))
def test_whatever_is_said_comes_back(about: str, values: dict[str, float]) -> None:
    assert both(metric(Kind.GAUGE, "x", values, "a", about=about)) == {
        ("x", (("a", key),)): float(value) for key, value in values.items()
    }


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4), st.floats(0, 1e6))
def test_histograms_are_cumulative(counts: list[int], total: float) -> None:
    value = Histogram((0.5, 1.0, 10.0), tuple(counts), total)
    found = both(metric(Kind.HISTOGRAM, "x", value))
    assert found["x_count", ()] == sum(counts) == found["x_bucket", (("le", "+Inf"),)]
    assert found["x_bucket", (("le", "1.0"),)] == counts[0] + counts[1]
    assert found["x_sum", ()] == total


@pytest.mark.parametrize("value", [math.inf, -math.inf, 0.1, 1e300])
def test_special_numbers(value: float) -> None:
    assert both(metric(Kind.GAUGE, "x", value)) == {("x", ()): value}


def test_not_a_number() -> None:
    assert "\nx NaN\n" in render(collect([metric(Kind.GAUGE, "x", math.nan)], None))


def test_several_labels() -> None:
    values = {("GET", "200"): 5, ("POST", "404"): 1}
    assert both(metric(Kind.COUNTER, "x_total", values, "method", "code")) == {
        ("x_total", (("code", "200"), ("method", "GET"))): 5,
        ("x_total", (("code", "404"), ("method", "POST"))): 1,
    }


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Kind.COUNTER, "x"), (Kind.GAUGE, "x_total"), (Kind.GAUGE, "x_info"), (Kind.INFO, "x"),
        (Kind.GAUGE, "1x"), (Kind.GAUGE, "X"), (Kind.GAUGE, "x-y"), (Kind.GAUGE, ""),
    ],
)  # fmt: skip
def test_names_follow_the_conventions(kind: Kind, name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        metric(kind, name, 0)
