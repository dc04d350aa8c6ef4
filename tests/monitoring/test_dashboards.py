"""The dashboards: that the files are what the code makes, well formed, and show what is there."""

import math
import re
import shutil

import numpy as np
import pytest
import yaml
from grafana_foundation_sdk.models import units
from PIL import Image
from sklearn.datasets import load_digits
from support import dashboard_preview as draw
from support.alerting import expressions, names
from support.bundles import picture
from support.monitored_stack import Scene
from support.prometheus import boards, interpolated, panels, queries

from monitoring.grafana import __main__ as command
from monitoring.grafana import boards as code
from serve.imaging.normalise import normalise
from serve.imaging.placement import centre_digit
from serve.models import drift_reference
from serve.models.predictor import Predictor

ROOT = command.FOLDER.parents[2]
GRAFANA = ROOT / "monitoring/grafana"
BOARDS = boards(command.FOLDER)
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
RUNBOOK = ROOT / "docs/RUNBOOK.md"
every = pytest.mark.parametrize("name", BOARDS)


def live(test):
    """Marks a test that asks a platform that runs."""
    for program, package in (
        ("prometheus", "prometheus"),
        ("prometheus-alertmanager", "prometheus-alertmanager"),
    ):
        test = pytest.mark.system(program, package)(test)
    return test


def test_the_files_are_what_the_code_makes():
    made = code.rendered()
    assert set(made) == set(BOARDS) == {"service", "model", "pipeline"}
    for name, text in made.items():
        assert (command.FOLDER / f"{name}.json").read_text() == text, "python -m monitoring.grafana"


def test_the_command_writes_them_for_readers_of_another_runbook(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    command.main(["--runbook", "https://wiki.example.org/digits"])
    for board in boards(tmp_path).values():
        assert "git.example.com" not in str(board)
        (runbook,) = (v for v in board["templating"]["list"] if v["name"] == "runbook")
        assert runbook["query"] == "https://wiki.example.org/digits"


@every
def test_panels_have_their_own_number_title_and_place(name):
    shown = BOARDS[name]["panels"]
    assert len({panel["id"] for panel in shown}) == len(shown)
    taken = set()
    for panel in shown:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    for y in {y for _, y in taken}:
        assert len([x for x, row in taken if row == y]) == 24, f"a gap in line {y}"


@every
def test_panels_explain_themselves_in_units_that_grafana_knows(name):
    known = {value for key, value in vars(units).items() if key.isupper() or key[0].isalpha()}
    for panel in panels(BOARDS[name]):
        assert len(panel["description"]) > 15, panel["title"]
        if panel["type"] == "heatmap":
            assert panel["options"]["yAxis"]["unit"] in known
        elif panel["type"] != "table":
            assert panel["fieldConfig"]["defaults"]["unit"] in known, panel["title"]


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


def test_dashboards_have_names_of_their_own():
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)
    assert len({board["title"] for board in BOARDS.values()}) == len(BOARDS)


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
    images = np.stack([normalise(centre_digit(grey)) for grey in greys])
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
            told = [target["expr"] for _, target in queries(BOARDS[name])]
            asked = [expr for expr in told if f"${variable['name']}" in expr]
            assert any(
                scene.prometheus.now(interpolated(expr, **{variable["name"]: chosen}))
                and not scene.prometheus.now(interpolated(expr, **{variable["name"]: none}))
                for expr in asked
            ), variable["name"]


@live
def test_every_name_that_is_asked_for_is_that_of_a_series(scene):
    """Those of live replicas, whose workers count in files, and of all else that is watched."""
    found = scene.prometheus.api.get("/label/__name__/values").json()["data"]
    asked = set().union(*map(names, expressions()))
    assert len(asked) > 30
    assert asked - set(found) == set()


@live
@every
def test_a_dashboard_can_be_drawn(scene, name, tmp_path):
    draw.Drawing(scene.prometheus, BOARDS[name], 17).save(tmp_path / "board.png")
    with Image.open(tmp_path / "board.png") as drawn:
        colours = drawn.convert("RGB").getcolors(2**24)
    assert len(colours) > 100


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
