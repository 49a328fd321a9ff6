"""What the server counts, and the page that Prometheus reads it from: names, labels and buckets of the real server.

prometheus_client cannot write this page: it appends `_total` to counters and writes bounds as `10.0`. Recording takes a
lock and about a microsecond. Durations are in microseconds.
"""

from __future__ import annotations

import re
import threading
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Labels = tuple[str, ...]
"""The labels' values, in the order of the metric's label names."""


def micros_since(start: float) -> int:
    """Return the microseconds since `start`, a `time.perf_counter()`."""
    return int((time.perf_counter() - start) * 1e6)


def exponential(scale: float, growth: float, count: int) -> tuple[float, ...]:
    """Return `count` upper bounds, each `growth` times the one before."""
    return tuple(accumulate([scale] + [growth] * (count - 1), lambda bound, factor: bound * factor))


class Counter:
    """A number for each combination of labels that only grows."""

    kind = "counter"

    def __init__(self, name: str, *label_names: str) -> None:
        self.name = name
        self._label_names = label_names
        self._values: dict[Labels, int] = {}
        self._lock = threading.Lock()

    def add(self, labels: Labels = (), by: int = 1) -> None:
        """Count `by` more."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + by

    def value(self, labels: Labels = ()) -> int:
        """Return the count."""
        return self._values.get(labels, 0)

    def lines(self) -> list[str]:
        """Return the metric's lines of the page."""
        with self._lock:
            values = sorted(self._values.items())
        return [f"{self.name}{{{_labels_text(self._label_names, labels)}}} {value}" for labels, value in values]


@dataclass(slots=True)
class _Samples:
    counts: list[int]
    total: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Sampler:
    """A histogram for each combination of labels."""

    kind = "histogram"

    def __init__(self, name: str, bounds: Sequence[float], *label_names: str) -> None:
        self.name = name
        self._bounds = bounds
        self._label_names = label_names
        self._samples: dict[Labels, _Samples] = {}

    def add(self, value: float, labels: Labels = ()) -> None:
        """Count `value` in the first bucket whose bound is above it."""
        samples = self._samples.get(labels)
        if samples is None:
            samples = self._samples.setdefault(labels, _Samples([0] * (len(self._bounds) + 1)))
        place = bisect_right(self._bounds, value)
        with samples.lock:
            samples.counts[place] += 1
            samples.total += value

    def lines(self) -> list[str]:
        """Return the metric's lines of the page."""
        lines: list[str] = []
        limits = [*map(number_text, self._bounds), "+Inf"]
        for labels, samples in sorted(self._samples.items()):
            with samples.lock:
                counts, total = list(accumulate(samples.counts)), samples.total
            text = _labels_text(self._label_names, labels)
            prefix = f"{self.name}_bucket{{{text}{',' if text else ''}le="
            lines += [f'{prefix}"{limit}"}} {count}' for limit, count in zip(limits, counts, strict=True)]
            lines += [f"{self.name}_sum{{{text}}} {number_text(total)}", f"{self.name}_count{{{text}}} {counts[-1]}"]
        return lines


def number_text(value: float) -> str:
    """Write a number with six digits."""
    return f"{value:.6g}"


def _labels_text(names: Sequence[str], values: Labels) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))


def _escaped(value: str) -> str:
    return re.sub(r'([\\"])', r"\\\1", value).replace("\n", "\\n")


_CORE, _SAVED_MODEL, _SERVING = ":tensorflow:core:", ":tensorflow:cc:saved_model:", ":tensorflow:serving:"
_LATENCY = exponential(10, 1.8, 33)
"""10 µs to 20 minutes."""
_SIZES = exponential(1, 2, 14)

REQUEST_COUNT = Counter(_SERVING + "request_count", "model_name", "status")
REQUEST_LATENCY = Sampler(_SERVING + "request_latency", _LATENCY, "model_name", "API", "entrypoint")
"""Of requests that succeeded. REST writes the API in lower case, and leaves it empty for status and metadata."""
RUNTIME_LATENCY = Sampler(_SERVING + "runtime_latency", _LATENCY, "model_name", "API", "runtime")
EXAMPLE_COUNTS = Sampler(_SERVING + "request_example_counts", exponential(1, 2, 15), "model")
EXAMPLE_COUNT_TOTAL = Counter(_SERVING + "request_example_count_total", "model")
WARMUP_LATENCY = Sampler(_SERVING + "model_warmup_latency", _LATENCY, "model_path", "status")
WARMUP_RECORDS = Counter(_SERVING + "model_warmup_records_read", "model_path")
QUEUING_LATENCY = Sampler(_SERVING + "batching_session:queuing_latency", exponential(100, 1.2, 52), "thread_pool_name")
INPUT_BATCH_SIZE = Sampler(_SERVING + "batching_session:input_batch_size", _SIZES)
"""Rows of each input tensor of a request."""
PROCESSED_BATCH_SIZE = Sampler(_SERVING + "batching_session:processed_batch_size", _SIZES)
"""Rows of a merged run, padding included."""
PADDING_SIZE = Sampler(_SERVING + "batching_session:padding_size", _SIZES, "execution_batch_size")
WRAPPED_RUN_COUNT = Counter(_SERVING + "batching_session:wrapped_run_count")
LOAD_ATTEMPT_COUNT = Counter(_SAVED_MODEL + "load_attempt_count", "model_path", "status")
LOAD_LATENCY = Counter(_SAVED_MODEL + "load_latency", "model_path")
LOAD_LATENCY_BY_STAGE = Sampler(_SAVED_MODEL + "load_latency_by_stage", _LATENCY, "model_path", "stage")
SESSION_RUNS = Counter(_CORE + "direct_session_runs")
GRAPH_RUNS = Counter(_CORE + "graph_runs")
GRAPH_RUN_TIME = Counter(_CORE + "graph_run_time_usecs")
GRAPH_RUN_TIMES = Sampler(_CORE + "graph_run_time_usecs_histogram", exponential(1000, 2, 20))

_ALL: Mapping[str, Counter | Sampler] = {
    metric.name: metric for metric in tuple(globals().values()) if isinstance(metric, Counter | Sampler)
}


def record_run(micros: int) -> None:
    """Count one run of a graph."""
    SESSION_RUNS.add()
    GRAPH_RUNS.add()
    GRAPH_RUN_TIME.add((), micros)
    GRAPH_RUN_TIMES.add(micros)


def record_examples(model: str, count: int) -> None:
    """Count the examples of a Classify, Regress or MultiInference request."""
    EXAMPLE_COUNTS.add(count, (model,))
    EXAMPLE_COUNT_TOTAL.add((model,), count)


def page() -> str:
    """Write all metrics, by name; one that has no value yet has its type line alone."""
    lines: list[str] = []
    for name, metric in sorted(_ALL.items()):
        lines += [f"# TYPE {name} {metric.kind}", *metric.lines()]
    return "\n".join(lines) + "\n"
