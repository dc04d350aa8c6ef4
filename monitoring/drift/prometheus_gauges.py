"""Prometheus gauges of the latest drift check."""

import time

from prometheus_client import CollectorRegistry, Gauge

from monitoring.drift.drift_tests import NEEDED, Findings


class Gauges:
    """The gauges of the drift job, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"drift_{name}", about, labels, registry=self.registry)

        self._p_value = gauge(
            "p_value", "p-value (Holm) of the Kolmogorov-Smirnov test of an output.", "test"
        )
        self._psi = gauge("psi", "Population stability index (PSI) of a feature.", "feature")
        self._detected = gauge("detected", "1 if the latest check found data drift, else 0.")
        self._images = gauge("window_images", "Images in the latest check.")
        self._needed = gauge("needed_images", "Images that a check needs to test for drift.")
        self._checked = gauge(
            "last_check_timestamp_seconds", "Unix time of the latest check, or of the job's start."
        )
        self._needed.set(NEEDED)
        self._checked.set(time.time())  # not 0, which DriftJobStale would take for 1970

    def show(self, findings: Findings) -> None:
        """Set all gauges; a check with too few images leaves no p-values and no PSI."""
        self._p_value.clear()
        self._psi.clear()
        for test, result in findings.p_values.items():
            self._p_value.labels(test).set(result.value)
        for feature, result in findings.psi.items():
            self._psi.labels(feature).set(result.value)
        self._detected.set(bool(findings.drifted))
        self._images.set(findings.images)
        self._checked.set(time.time())
