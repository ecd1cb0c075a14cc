"""Numbers of workers as OpenMetrics text: all workers, no surprises in labels, an end to series."""

import re
from pathlib import Path

from chartgate.adapters.decision_metrics import Metrics

_LINE = re.compile(
    r'(# (TYPE|HELP|UNIT|EOF)\b.*|[a-z_]+(\{[a-z_]+="([^"\\\n]|\\.)*"(,[a-z_]+="([^"\\\n]|\\.)*")*\})? '
    r"[0-9eE+.-]+)"
)


def test_every_line_is_one_of_the_format():
    metrics = Metrics("decide-1")
    metrics.decided("allow", "view", 'a "service"\nof\\ours')
    metrics.requested("evaluation", 200)
    metrics.count("refused_overload")
    metrics.gauges["connections"] = 3
    metrics.policy_set = "ab" * 32
    metrics.stages["total"].add(0.0001)
    lines = metrics.text().decode().splitlines()
    assert lines[-1] == "# EOF"
    for line in lines:
        assert _LINE.fullmatch(line), line


def test_a_histogram_counts_upwards_to_all():
    metrics = Metrics("decide-1")
    for seconds in (0.00001, 0.00006, 0.5, 30.0):
        metrics.stages["record"].add(seconds)
    text = metrics.text().decode()
    found = [
        int(count)
        for count in re.findall(
            r'stage_seconds_bucket\{worker="decide-1",stage="record",le="[^"]+"\} (\d+)', text
        )
    ]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1, 4)


def test_who_is_asked_answers_for_all_workers_that_live(tmp_path: Path):
    first, second = Metrics("decide-1", tmp_path), Metrics("decide-2", tmp_path)
    first.decided("allow", "view", "app")
    second.decided("deny", "view", "app")
    second.save()
    (tmp_path / "decide-3.metrics").write_bytes(b"half a fi")
    text = first.text().decode()
    assert 'worker="decide-1",outcome="allow"' in text
    assert 'worker="decide-2",outcome="deny"' in text
    second.forget()
    assert "decide-2" not in first.text().decode()


def test_there_is_an_end_to_series():
    metrics = Metrics("decide-1")
    for number in range(3_000):
        metrics.decided("deny", f"action{number}", "app")
    assert metrics.text().count(b"chartgate_decisions_total{") == 1_001
    assert b'action="other",service="other"} 2000' in metrics.text()
