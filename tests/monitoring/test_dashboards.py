"""Grafana dashboards: well-formed JSON, thresholds equal the code's, queries have answers."""

import math
import re
import shutil

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits
from support.alerting import expressions, names
from support.bundles import picture
from support.monitored_stack import Scene
from support.prometheus import boards, interpolated, panels, queries
from support.service_process import ROOT

from monitoring.drift.drift_tests import FALSE_ALARMS, LARGE_PSI
from serve.imaging.normalise import normalise
from serve.imaging.placement import centre_digit
from serve.models import drift_reference
from serve.models.predictor import Predictor

GRAFANA = ROOT / "monitoring/grafana"
BOARDS = boards(GRAFANA / "dashboards")
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
RUNBOOK = ROOT / "docs/RUNBOOK.md"
# Ids of Grafana's units; an unknown one would be shown as text behind the number.
UNITS = {"cps", "dateTimeFromNow", "none", "percentunit", "reqps", "s", "short"}
every = pytest.mark.parametrize("name", BOARDS)


def live(test):
    """Marks a test that asks a platform that runs."""
    for program in ("prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter"):
        test = pytest.mark.system(program, program)(test)
    return test


def test_there_are_three_dashboards_with_an_id_and_title_each():
    assert set(BOARDS) == {"service", "model", "pipeline"}
    assert {board["uid"] for board in BOARDS.values()} == {f"digits-{name}" for name in BOARDS}
    assert len({board["title"] for board in BOARDS.values()}) == len(BOARDS)


def test_one_sed_changes_the_runbook_of_rules_and_dashboards():
    """The command of docs/MONITORING.md, tried on copies of the texts."""
    pattern = r"(https://git.example.com/digit-platform/blob/main/)?docs/RUNBOOK.md"
    assert f"s#{pattern}#" in (ROOT / "docs/MONITORING.md").read_text()
    files = [*GRAFANA.glob("dashboards/*.json"), *ROOT.glob("monitoring/prometheus/rules/*.yml")]
    changed = [re.sub(pattern, "https://wiki.example.org/digits", f.read_text()) for f in files]
    assert "RUNBOOK" not in "".join(changed)
    assert "git.example.com" not in "".join(changed)


def steps(name, title):
    """The thresholds of a panel, without the base."""
    (panel,) = (p for p in panels(BOARDS[name]) if p["title"] == title)
    return [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]]


def test_thresholds_of_drift_are_those_of_the_drift_tests():
    assert steps("model", "Drift tests: p-values (Holm)") == [FALSE_ALARMS]
    assert steps("model", "Population stability index (PSI)") == [0.1, LARGE_PSI]


def test_the_threshold_of_test_accuracy_is_the_gate():
    gate = yaml.safe_load((ROOT / "conf/register.yaml").read_text())["gates"]["test_accuracy"]
    assert steps("pipeline", "Best test accuracy")[-1] == gate
    assert steps("pipeline", "Test accuracy of the runs") == [gate]


@every
def test_panels_have_numbers_of_their_own_and_do_not_overlap(name):
    shown = BOARDS[name]["panels"]
    assert len({panel["id"] for panel in shown}) == len(shown)
    places = [panel["gridPos"] for panel in shown]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)


@every
def test_panels_explain_themselves_in_units_that_grafana_knows(name):
    for panel in panels(BOARDS[name]):
        assert len(panel["description"]) > 15, panel["title"]
        if panel["type"] == "heatmap":
            assert panel["options"]["yAxis"]["unit"] in UNITS
        elif panel["type"] != "table":
            assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]


@every
def test_thresholds_rise_from_a_base(name):
    for panel in panels(BOARDS[name]):
        steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps")
        if steps:
            assert steps[0]["value"] is None
            values = [step["value"] for step in steps[1:]]
            assert values == sorted(values)


@every
def test_what_is_referred_to_is_defined(name):
    board = BOARDS[name]
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", str(board)))
    assert used <= set(variables)
    sources = {
        str(found["uid"]) for p, t in queries(board) for found in (p["datasource"], t["datasource"])
    }
    assert sources == {"${datasource}"}
    (provisioned,) = yaml.safe_load(
        (GRAFANA / "provisioning/datasources/prometheus.yaml").read_text()
    )["datasources"]
    assert variables["datasource"]["current"]["value"] == provisioned["uid"]
    assert variables["datasource"]["query"] == provisioned["type"]


def test_grafana_finds_them_where_compose_mounts_them():
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/dashboards.yaml").read_text())[
        "providers"
    ]
    mounts = dict(v.split(":")[:2] for v in COMPOSE["services"]["grafana"]["volumes"])
    assert mounts["../monitoring/grafana/dashboards"] == provider["options"]["path"]
    assert mounts["../monitoring/grafana/provisioning"] == "/etc/grafana/provisioning"


@every
def test_links_lead_to_sections_of_the_runbook(name):
    headings = re.findall(r"^#+ (.+)$", RUNBOOK.read_text(), re.M)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    linked = {link["url"] for p in panels(BOARDS[name]) for link in p.get("links", ())}
    assert {url.removeprefix("${runbook}#") for url in linked} <= anchors


@pytest.fixture(scope="module")
def bundles(made, tmp_path_factory):
    """Two with a reference: scanned digits as the service sees them."""
    greys = (load_digits().images[:300] * (255 / 16)).round().astype(np.uint8)
    images = np.stack([normalise(centre_digit(grey)).image for grey in greys])
    copies = []
    for digit in (3, 8):
        copy = shutil.copytree(made[digit], tmp_path_factory.mktemp("bundles") / str(digit))
        taken = drift_reference.build(images, Predictor(copy).probabilities(images))
        np.savez(copy / drift_reference.FILE, **taken._asdict())
        copies.append(copy)
    return copies


@pytest.fixture(scope="module")
def scene(bundles, tmp_path_factory):
    with Scene(tmp_path_factory.mktemp("scene"), *bundles) as scene:
        scene.play(12, [picture(), picture(64), picture(400)], [3, 8, 3])
        yield scene


@live
@every
def test_every_query_of_a_running_platform_has_an_answer(scene, name):
    for panel, target in queries(BOARDS[name]):
        expr = interpolated(target["expr"])
        asked = scene.prometheus.now if target.get("instant") else scene.prometheus.over_time
        series = asked(expr)
        assert series, (panel["title"], expr)
        values = [v for s in series for _, v in s.get("values") or [s["value"]]]
        assert any(math.isfinite(float(value)) for value in values), (panel["title"], expr)
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert all(label in s["metric"] for s in series), (panel["title"], label)


@live
@every
def test_variables_offer_what_there_is_to_choose(scene, name):
    for variable in BOARDS[name]["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(
                r"label_values\((.+), (\w+)\)", variable["query"]["query"]
            ).groups()
            found = {series["metric"][label] for series in scene.prometheus.now(metric)}
            assert len(found) >= 2, variable["name"]
            chosen, none = found.pop(), "nowhere"
            exprs = [target["expr"] for _, target in queries(BOARDS[name])]
            asked = [expr for expr in exprs if f"${variable['name']}" in expr]
            assert any(
                scene.prometheus.now(interpolated(expr, **{variable["name"]: chosen}))
                and not scene.prometheus.now(interpolated(expr, **{variable["name"]: none}))
                for expr in asked
            ), variable["name"]


@live
def test_every_name_that_is_asked_for_is_that_of_a_series(scene):
    """Those of live replicas, whose workers count in files, and of all else that is watched."""
    found = scene.prometheus.get("/api/v1/label/__name__/values").json()["data"]
    asked = set().union(*map(names, expressions()))
    assert len(asked) > 30
    assert asked - set(found) == set()


@live
def test_a_choice_of_version_or_replica_narrows_what_is_shown(scene):
    answers = next(
        target["expr"] for panel, target in queries(BOARDS["model"]) if panel["title"] == "Versions"
    )
    everything = scene.prometheus.now(interpolated(answers))
    assert {series["metric"]["model_version"] for series in everything} == {"1", "2"}
    (one,) = scene.prometheus.now(interpolated(answers, model_version="2"))
    assert one["metric"]["model_version"] == "2"
    requests = next(
        target["expr"]
        for panel, target in queries(BOARDS["service"])
        if panel["title"] == "Requests by replica"
    )
    both = scene.prometheus.over_time(interpolated(requests))
    replica = both[0]["metric"]["instance"]
    escaped = re.escape(replica).replace("\\", r"\\")  # as Grafana does
    (narrowed,) = scene.prometheus.over_time(interpolated(requests, replica=escaped))
    assert narrowed["metric"]["instance"] == replica
