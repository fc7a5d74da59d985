"""Count what a server does, in the text form that Prometheus reads.

Boundary: numbers in, text out; knows neither requests nor models.
"""

import threading
from bisect import bisect_left
from collections import defaultdict

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper edges of the histogram buckets."""

HELP = {
    "requests_total": "Requests by path and HTTP status.",
    "tokens_total": "Tokens read (kind prompt) and said (kind answer).",
    "pictures_total": "Pictures by how they were seen: encoded, or taken from memory.",
    "answers_total": "Answers by why they ended.",
    "waiting": "Requests that wait for their turn.",
    "memory_bytes": "Resident memory of the server.",
    "first_word_seconds": "From the arrival of a request to its first token.",
    "answer_seconds": "From the arrival of a request to its last token.",
}


class Metrics:
    """Counters, gauges and histograms; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._buckets: dict[str, list[int]] = {}
        self._sums: dict[str, float] = defaultdict(float)

    def add(self, name: str, amount: int = 1, **labels: str) -> None:
        """Raise a counter."""
        with self._lock:
            self._counts[name][_labels(labels)] += amount

    def observe(self, name: str, seconds: float) -> None:
        """Put a duration into a histogram."""
        with self._lock:
            buckets = self._buckets.setdefault(name, [0] * (len(SECONDS) + 1))
            buckets[bisect_left(SECONDS, seconds)] += 1
            self._sums[name] += seconds

    def render(self, **gauges: int) -> str:
        """Return everything in the Prometheus text form, version 0.0.4.

        >>> metrics = Metrics()
        >>> metrics.add("tokens_total", 3, kind="answer")
        >>> print(metrics.render().strip())
        # HELP handlens_tokens_total Tokens read (kind prompt) and said (kind answer).
        # TYPE handlens_tokens_total counter
        handlens_tokens_total{kind="answer"} 3
        """
        with self._lock:
            lines: list[str] = []
            for name, rows in self._counts.items():
                lines += _head(name, "counter") + [f"handlens_{name}{key} {value}" for key, value in rows.items()]
            for name, value in gauges.items():
                lines += [*_head(name, "gauge"), f"handlens_{name} {value}"]
            for name, buckets in self._buckets.items():
                lines += _head(name, "histogram") + self._histogram(name, buckets)
        return "\n".join(lines) + "\n"

    def _histogram(self, name: str, buckets: list[int]) -> list[str]:
        edges = [*(f"{edge:g}" for edge in SECONDS), "+Inf"]
        lines = [f'handlens_{name}_bucket{{le="{edge}"}} {sum(buckets[: n + 1])}' for n, edge in enumerate(edges)]
        return [*lines, f"handlens_{name}_sum {self._sums[name]:.6f}", f"handlens_{name}_count {sum(buckets)}"]


def _head(name: str, kind: str) -> list[str]:
    return [f"# HELP handlens_{name} {HELP.get(name, name)}", f"# TYPE handlens_{name} {kind}"]


def _labels(labels: dict[str, str]) -> str:
    rows = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{{{rows}}}" if rows else ""
