"""The page for Prometheus: the exporter's format, and bounds as TensorFlow's histograms have them."""

from __future__ import annotations

import threading

from serving.model_server import metrics


def test_a_counter_has_a_line_for_each_combination_of_labels() -> None:
    counter = metrics.Counter(":a:count", "model_name", "status")
    counter.add(("m", "OK"))
    counter.add(('say "\\"', "NOT_FOUND"), 3)
    counter.add(("m", "OK"))
    assert counter.lines() == [
        ':a:count{model_name="m",status="OK"} 2',
        ':a:count{model_name="say \\"\\\\\\"",status="NOT_FOUND"} 3',
    ]


def test_a_histogram_counts_up_and_a_value_on_a_bound_lies_above_it() -> None:
    sampler = metrics.Sampler(":a:latency", metrics.exponential(10, 1.8, 3), "model_name")
    for value in (9, 10, 1000):
        sampler.add(value, ("m",))
    assert sampler.lines() == [
        ':a:latency_bucket{model_name="m",le="10"} 1',
        ':a:latency_bucket{model_name="m",le="18"} 2',
        ':a:latency_bucket{model_name="m",le="32.4"} 2',
        ':a:latency_bucket{model_name="m",le="+Inf"} 3',
        ':a:latency_sum{model_name="m"} 1019',
        ':a:latency_count{model_name="m"} 3',
    ]


def test_bounds_are_those_that_the_real_page_shows() -> None:
    texts = [metrics.number_text(bound) for bound in metrics.exponential(10, 1.8, 33)]
    assert texts[8:10] == ["1102", "1983.59"]
    assert texts[-3:] == ["4.55172e+08", "8.19309e+08", "1.47476e+09"]


def test_nothing_is_lost_between_threads() -> None:
    counter, sampler = metrics.Counter(":a:count"), metrics.Sampler(":a:size", (1.0,))

    def work() -> None:
        for _ in range(2000):
            counter.add()
            sampler.add(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.value() == 8000
    assert sampler.lines()[-1] == ":a:size_count{} 8000"


def test_every_metric_has_its_type_on_the_page_by_name() -> None:
    types = [line for line in metrics.page().splitlines() if line.startswith("#")]
    assert types == sorted(types)
    assert "# TYPE :tensorflow:cc:saved_model:load_attempt_count counter" in types
    assert "# TYPE :tensorflow:serving:request_latency histogram" in types
    assert "# TYPE :tensorflow:serving:batching_session:processed_batch_size histogram" in types
