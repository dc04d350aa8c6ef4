"""*Service*: rate, errors, latency and saturation, by replica."""

from __future__ import annotations

from monitoring.grafana.panels import Panel, Steps, figure, heat, lines, rows

_OURS = 'job="digits",instance=~"$replica"'
_CHOSEN = '{instance=~"$replica"}'  # of what the recording rules keep
_MESSAGES = '{job="alertmanager"}'
_RATE = "[$__rate_interval]"
_REQUESTS = f"rate(api_requests_total{{{_OURS}}}{_RATE})"
_FAILED = f'rate(api_requests_total{{{_OURS},status_code=~"5.."}}{_RATE})'
_SHARE = f"(sum({_FAILED}) or vector(0)) / sum({_REQUESTS})"
_DURATIONS = f"rate(request_duration_seconds_bucket{{{_OURS}}}{_RATE})"
_ONE = f'rate(request_duration_seconds_bucket{{{_OURS},endpoint="/predict"}}{_RATE})'
_INNER = f"rate(prediction_latency_seconds_bucket{{{_OURS}}}{_RATE})"

_ERRORS: Steps = ((0.001, "yellow"), (0.01, "red"))  # shares of all requests
_SLOW: Steps = ((0.1, "yellow"), (0.25, "red"))  # seconds; the objective is 0.25

_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def _quantiles(buckets: str) -> dict[str, str]:
    return {
        name: f"histogram_quantile({quantile}, sum by (le) ({buckets}))"
        for name, quantile in _QUANTILES.items()
    }


ROWS: dict[str, list[Panel]] = {
    "Now": [
        figure(
            "Replicas",
            "Replicas that Prometheus reaches.",
            f"sum(up{{{_OURS}}})",
            "short",
            steps=((1, "green"),),
            base="red",
            runbook="servicedown",
        ),
        figure(
            "Ready",
            "Whether every replica can predict.",
            f"min(model_ready{{{_OURS}}})",
            "short",
            words={"0": ("not ready", "red"), "1": ("ready", "green")},
            runbook="modelnotready",
        ),
        figure(
            "Registry",
            "Degraded: a replica serves, but cannot follow the registry.",
            f"max(model_degraded{{{_OURS}}})",
            "short",
            words={"0": ("followed", "green"), "1": ("degraded", "orange")},
            runbook="modeldegraded",
        ),
        figure(
            "Rate",
            "Requests per second; probes and scrapes are not counted.",
            f"sum({_REQUESTS})",
            "reqps",
        ),
        figure(
            "Errors",
            "Share of requests that the service failed (5xx). A caller's mistake is none.",
            f"{_SHARE} >= 0",  # of no requests it is no number
            "percentunit",
            steps=_ERRORS,
            runbook="higherrorratio",
        ),
        figure(
            "p95 of /predict",
            "95 of 100 requests for one prediction are answered within this time.",
            f"{_quantiles(_ONE)['p95']} >= 0",
            "s",
            steps=_SLOW,
            runbook="latencyhigh",
        ),
    ],
    "Alerts": [
        rows(
            "Firing",
            "What fires now, also what Alertmanager holds back or cannot deliver.",
            {"alertname": "Alert", "severity": "Severity", "concerns": "Concerns"},
            {
                "How many": (
                    "count by (alertname, severity, concerns)"
                    ' (ALERTS{alertstate="firing",concerns=~"service|model|monitoring"})',
                    "short",
                    0,
                )
            },
            runbook="the-first-minute",
            span=16,
        ),
        lines(
            "Notifications",
            "Messages of Alertmanager to whoever is on call. Of one that failed nobody else tells.",
            {
                "sent": f"sum(rate(alertmanager_notifications_total{_MESSAGES}{_RATE}))",
                "failed": f"sum(rate(alertmanager_notifications_failed_total{_MESSAGES}{_RATE}))",
            },
            "cps",
            runbook="notificationsfail",
            span=8,
        ),
    ],
    "Rate": [
        lines(
            "Requests by path",
            "Routes, never raw paths.",
            {"{{method}} {{endpoint}}": f"sum by (method, endpoint) ({_REQUESTS})"},
            "reqps",
            stacked=True,
        ),
        lines(
            "Requests by replica",
            "Uneven lines: the balancer prefers some, or a replica is slow. Over five minutes.",
            {"{{instance}}": f"sum by (instance) (digits:requests:rate5m{_CHOSEN})"},
            "reqps",
        ),
    ],
    "Errors": [
        lines(
            "Share of errors",
            "Requests that the service failed (5xx), of all.",
            {"5xx": _SHARE},
            "percentunit",
            steps=_ERRORS,
            runbook="higherrorratio",
            span=8,
        ),
        lines(
            "Responses that are not 2xx, by status",
            "429: a limit was reached. 499: the caller went away. 503: no model, or too busy.",
            {
                "{{status_code}}": (
                    "sum by (status_code)"
                    f' (rate(api_requests_total{{{_OURS},status_code!~"2.."}}{_RATE}))'
                )
            },
            "reqps",
            runbook="higherrorratio",
            span=8,
        ),
        lines(
            "Pictures without an answer, by reason",
            "What callers send that cannot be read, and what is refused.",
            {
                "{{error_type}}": (
                    f"sum by (error_type) (rate(prediction_errors_total{{{_OURS}}}{_RATE}))"
                )
            },
            "cps",
            runbook="higherrorratio",
            span=8,
        ),
    ],
    "Latency": [
        lines(
            "Time to answer /predict",
            "From a request to the end of its response: parsing, waiting and writing included.",
            _quantiles(_ONE),
            "s",
            steps=_SLOW[1:],
            runbook="latencyhigh",
        ),
        lines(
            "Time to normalise and read one image",
            "Without HTTP. If this grows too, pictures or the model have become larger.",
            _quantiles(_INNER),
            "s",
            runbook="latencyhigh",
        ),
        heat(
            "Times of all requests",
            "How many requests took how long. Two bands: two kinds of pictures, or of replicas.",
            f"sum by (le) (increase(request_duration_seconds_bucket{{{_OURS}}}{_RATE}))",
            "s",
            runbook="latencyhigh",
        ),
        lines(
            "p95 by replica",
            "All paths. One line above the others: look at that machine.",
            {"{{instance}}": (f"histogram_quantile(0.95, sum by (instance, le) ({_DURATIONS}))")},
            "s",
            runbook="latencyhigh",
        ),
    ],
    "Saturation": [
        lines(
            "Requests in flight, by replica",
            "Most of five minutes. Rising while the rate does not: more comes than is done.",
            {"{{instance}}": f"digits:active_requests:max_5m{_CHOSEN}"},
            "short",
            runbook="latencyhigh",
            span=8,
        ),
        lines(
            "Refused, by status",
            "429: over RATE_LIMIT. 503: more work waits than a worker can hold, or no model.",
            {
                "{{status_code}}": (
                    "sum by (status_code) (rate("
                    f'api_requests_total{{{_OURS},status_code=~"429|503"}}{_RATE}))'
                )
            },
            "reqps",
            runbook="latencyhigh",
            span=8,
        ),
        lines(
            "Time to scrape, by replica",
            "How long Prometheus waits for the metrics: a busy event loop answers late.",
            {"{{instance}}": f"scrape_duration_seconds{{{_OURS}}}"},
            "s",
            runbook="latencyhigh",
            span=8,
        ),
    ],
}
