"""What a check found, as Prometheus reads it."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Gauge

from monitoring.drift.drift_tests import NEEDED, Findings


class Gauges:
    """The gauges of the drift job, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(name, about, labels, registry=self.registry)

        self._p_value = gauge("drift_p_value", "Kolmogorov-Smirnov on a softmax output.", "test")
        self._psi = gauge("drift_psi", "Population stability index of a feature.", "feature")
        self._detected = gauge("drift_detected", "Whether the latest check found drift.")
        self._images = gauge("drift_window_images", "Images of the latest check.")
        self._needed = gauge("drift_needed_images", "Images without which nothing is said.")
        self._checked = gauge(
            "drift_last_check_timestamp_seconds", "When that was, or the job began."
        )
        self._needed.set(NEEDED)
        self._checked.set(time.time())  # from when on a check is missed: 0 would be 1970

    def show(self, findings: Findings) -> None:
        """Shows a check; of one with too few images no p-value and no PSI."""
        self._p_value.clear()
        self._psi.clear()
        for test, found in findings.p_values.items():
            self._p_value.labels(test).set(found.value)
        for feature, found in findings.psi.items():
            self._psi.labels(feature).set(found.value)
        self._detected.set(bool(findings.drifted))
        self._images.set(findings.images)
        self._checked.set(time.time())
