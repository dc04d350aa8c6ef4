"""From arrays to metrics: accuracy, calibration, significance, latency."""
