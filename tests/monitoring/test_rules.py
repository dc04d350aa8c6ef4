"""The rules: what promtool says of them, what each alert must carry, and what names they use."""

import re
from datetime import UTC, datetime

import httpx2
import pytest
import yaml
from support.alerting import (
    ALERTS,
    RULES,
    WATCHDOG,
    Webhook,
    alertmanager,
    within,
)
from support.manifests import succeeds
from support.service_process import ROOT

PROMETHEUS = ROOT / "monitoring/prometheus"
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
RUNBOOK = (ROOT / "docs/RUNBOOK.md").read_text()
MONITORING = (ROOT / "docs/MONITORING.md").read_text()
PARTS = ("Means", "Service or model", "First", "Mend", "Wake")
promtool = pytest.mark.system("promtool", "prometheus")


@promtool
def test_prometheus_reads_its_configuration_and_every_rule(tmp_path):
    said = succeeds("promtool", "check", "config", PROMETHEUS / "prometheus.yml")
    assert f"SUCCESS: {len(RULES)} rule files found" in said


@promtool
@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_promtool_tests_pass(file):
    succeeds("promtool", "test", "rules", file)


def test_promtool_tests_see_every_alert_firing_and_quiet():
    fired, quiet = set(), {}
    for file in TESTS:
        for case in yaml.safe_load(file.read_text())["tests"]:
            for check in case["alert_rule_test"]:
                if check.get("exp_alerts"):
                    fired.add(check["alertname"])
                else:
                    quiet.setdefault(case["name"], set()).add(check["alertname"])
    assert fired == set(ALERTS)
    assert quiet["healthy"] == quiet["new"] == set(ALERTS) - {WATCHDOG}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_what_how_much_and_what_to_do(name):
    rule = ALERTS[name]
    watchdog = name == WATCHDOG  # nobody has to act on it
    assert rule["labels"]["severity"] in (
        ("none",) if watchdog else ("critical", "warning", "info")
    )
    assert rule["labels"]["concerns"] in ("service", "model", "monitoring")
    texts = rule["annotations"]
    assert "{{" not in texts["summary"]
    assert "$value" in texts["description"] or watchdog
    path, _, anchor = texts["runbook_url"].partition("#")
    assert path == "docs/RUNBOOK.md"
    assert anchor == name.lower()


@pytest.mark.parametrize("name", ALERTS)
def test_the_runbook_has_a_section_for_it(name):
    section = RUNBOOK.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
    assert [part for part in PARTS if not re.search(rf"\*\*{part}\.\*\*\s", section)] == []


def test_the_runbook_has_no_section_for_what_is_no_alert():
    assert set(re.findall(r"^### (\w+)$", RUNBOOK, re.MULTILINE)) == set(ALERTS)


def test_the_runbooks_commands_are_whole():
    asked = [c for c in re.findall(r"curl(?:\\\n|[^\n])*", RUNBOOK) if "$URL/predict" in c]
    assert asked
    assert all('-H "X-API-Key: $KEY"' in command for command in asked)
    assert "trainer python -m pipeline.register --rollback" in RUNBOOK
    trainer = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]["trainer"]
    assert trainer["environment"]["MLFLOW_TRACKING_URI"]  # so the command need not set it
    jobs = set(re.findall(r"cronjob/([\w-]+)", RUNBOOK))
    manifests = (ROOT / "deploy/kubernetes/base").glob("*.yaml")
    documents = [d for file in manifests for d in yaml.safe_load_all(file.read_text())]
    assert jobs == {"model-rollback", "pipeline", "retrain"}
    assert jobs <= {d["metadata"]["name"] for d in documents if d["kind"] == "CronJob"}
    for module, options in re.findall(r"python -m (pipeline\.\w+)((?: --\w+)*)", RUNBOOK):
        text = (ROOT / f"{module.replace('.', '/')}.py").read_text()
        assert all(f'"{option}"' in text for option in options.split()), module


def test_the_table_of_alerts_is_that_of_the_rules():
    rows = re.findall(r"^\| \[(\w+)\]\((\S+)\) \| (\w+) \| (\w+) \| ([^|]+) \|", MONITORING, re.M)
    assert rows == [
        (
            name,
            f"RUNBOOK.md#{name.lower()}",
            rule["labels"]["severity"],
            rule["labels"]["concerns"],
            rule.get("for", "at once"),
        )
        for name, rule in ALERTS.items()
    ]


# ---- routes and inhibition


@pytest.fixture
def routes(tmp_path):
    """Alertmanager's file as its older versions read it, too."""
    file = tmp_path / "alertmanager.yml"
    text = (ROOT / "monitoring/alertmanager/alertmanager.yml").read_text()
    file.write_text(re.sub("url_file: .*", "url: http://localhost:9/", text))
    return file


@pytest.mark.system("amtool", "prometheus-alertmanager")
def test_alertmanager_routes_every_alert_but_the_watchdog_to_the_receiver_on_call(routes):
    assert "SUCCESS" in succeeds("amtool", "check-config", routes)
    for name, rule in ALERTS.items():
        labels = [f"{key}={value}" for key, value in rule["labels"].items()]
        command = ["amtool", "config", "routes", "test", f"--config.file={routes}"]
        receiver = succeeds(*command, f"alertname={name}", *labels).strip()
        assert receiver == ("watchdog" if name == WATCHDOG else "on-call")


def test_an_alert_that_joins_a_firing_group_waits_no_longer_than_the_first():
    top = yaml.safe_load((ROOT / "monitoring/alertmanager/alertmanager.yml").read_text())["route"]
    for route in (top, *(top | own for own in top["routes"])):
        assert route["group_interval"] == route["group_wait"]


def matched(matchers):
    """Return the alerts that these matchers name."""
    found = (re.fullmatch(r'alertname=~?"(.*)"', matcher) for matcher in matchers)
    return {name for one in found if one for name in one[1].split("|")}


def inhibition():
    return yaml.safe_load((ROOT / "monitoring/alertmanager/alertmanager.yml").read_text())[
        "inhibit_rules"
    ]


def test_inhibition_rules_name_existing_alerts():
    for rule in inhibition():
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            found = re.fullmatch(r'alertname(=~?|!=)"(.*)"', matcher)
            if found:
                for name in found[2].split("|"):
                    assert any(re.fullmatch(name, alert) for alert in ALERTS), name


def test_an_alert_that_inhibits_others_fires_until_those_have_ended():
    """Prometheus sends ends rule by rule, and groups at other times: longer than two rounds."""
    for rule in inhibition():
        for name in matched(rule["source_matchers"]):
            assert ALERTS[name]["keep_firing_for"] == "1m", name


def post(running, *names, **more):
    """Tell Alertmanager of these alerts, as Prometheus does."""
    alerts = [{"labels": {"alertname": name, **ALERTS[name]["labels"]}, **more} for name in names]
    url = f"{running.url}/api/v2/alerts"
    assert httpx2.post(url, json=alerts, trust_env=False).status_code == 200


@pytest.mark.system("prometheus-alertmanager", "prometheus-alertmanager")
def test_the_watchdog_is_sent_again_and_again_to_its_own_receiver_while_it_fires(tmp_path):
    webhook = Webhook()
    running = alertmanager(tmp_path, webhook.url, "1/60")

    def resolved():
        return webhook.alerts("resolved", since=0)

    try:
        post(running, WATCHDOG, "TargetDown")
        within(lambda: len(webhook.heartbeats) > 2, 60, running.output)
        within(webhook.pending, 60, running.output)
        ended = datetime.now(UTC).isoformat()
        post(running, WATCHDOG, "TargetDown", endsAt=ended)
        within(resolved, 60, running.output)
        assert (resolved(), webhook.alerts("firing", since=0)) == ({"TargetDown"}, {"TargetDown"})
        sent = [alert for message in webhook.heartbeats for alert in message["alerts"]]
        assert {(a["labels"]["alertname"], a["status"]) for a in sent} == {(WATCHDOG, "firing")}
    finally:
        running.stop()
        webhook.close()


@pytest.mark.system("prometheus-alertmanager", "prometheus-alertmanager")
def test_while_the_service_is_down_its_other_alerts_are_inhibited(tmp_path):
    running = alertmanager(tmp_path, "http://127.0.0.1:9/")

    def inhibited():
        alerts = running.get("/api/v2/alerts").json()
        return {a["labels"]["alertname"] for a in alerts if a["status"]["state"] == "suppressed"}

    try:
        post(running, "LatencyHigh", "LowConfidence", "DriftJobStale")
        assert inhibited() == set()
        post(running, "ServiceDown")
        assert inhibited() == {"LatencyHigh", "LowConfidence"}
        post(running, *ALERTS)
        concerned = {n for n, r in ALERTS.items() if r["labels"]["concerns"] != "monitoring"}
        assert inhibited() == concerned - {"ServiceDown"}
    finally:
        running.stop()
