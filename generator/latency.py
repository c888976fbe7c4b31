"""Latencies in an HDR histogram: constant memory, three significant digits, exact maximum."""

import msgspec
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]  # ships no types

_LOWEST_MICROSECONDS = 1
_HIGHEST_MICROSECONDS = 3_600_000_000  # an hour: no timeout with its retries lasts longer
_SIGNIFICANT_DIGITS = 3


class LatencyMilliseconds(msgspec.Struct):
    """Percentiles in milliseconds; all null when nothing was measured."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


class LatencyHistogram:
    """Record durations in seconds, read percentiles in milliseconds. Recording is O(1)."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(
            _LOWEST_MICROSECONDS, _HIGHEST_MICROSECONDS, _SIGNIFICANT_DIGITS
        )
        self._longest_seconds = 0.0

    def record(self, seconds: float) -> None:
        """Count one duration; what lies outside a microsecond to an hour counts as the nearest."""
        microseconds = round(seconds * 1e6)
        self._histogram.record_value(
            min(max(microseconds, _LOWEST_MICROSECONDS), _HIGHEST_MICROSECONDS)
        )
        self._longest_seconds = max(self._longest_seconds, seconds)

    def summary(self) -> LatencyMilliseconds:
        """p50, p95, p99 and the exact maximum."""
        if self._histogram.get_total_count() == 0:
            return LatencyMilliseconds()
        longest = round(self._longest_seconds * 1e3, 3)
        microseconds = self._histogram.get_percentile_to_value_dict([50, 95, 99])
        # A bucket reports its upper edge, which may lie above the largest value seen.
        p50, p95, p99 = (min(round(microseconds[p] / 1e3, 3), longest) for p in (50, 95, 99))
        return LatencyMilliseconds(p50=p50, p95=p95, p99=p99, max=longest)
