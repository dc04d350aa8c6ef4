"""Labelled pictures of one's own, from a folder to an answer on the page, without Python."""

import json
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import expect
from support.clones import ROOT, unbuilt
from support.service_process import Process, until

LETTERS = ROOT.parent / "shared/omniglot/images_background_small2.zip"
NAMES = ",".join("abcdefghijklmnopqrstuvwxyz")
WRITER = r"_(\d+)\.png$"
expect.set_options(timeout=60_000)  # for a machine that does much else


@pytest.fixture
def clone(tmp_path):
    """An unbuilt clone in which one small network is trained."""
    found = unbuilt(tmp_path / "clone")
    found.edit("conf/run/3.yaml", "[[64], [64, 96]]", "[[32], [48]]")
    found.pick("runs", "[3]")
    return found


def built(clone, name, *described):
    """Describes the pictures, builds and registers; what registering says."""
    clone.run("python", "-m", "pipeline.new_data", name, *described)
    clone.pick("data", name)
    clone.commit("other pictures")
    clone.run("dvc", "repro")
    return clone.run("python", "-m", "pipeline.register")


def served(clone, bundle, name, folder):
    """A service of the digits and of what was registered."""
    return Process(
        folder,
        MODELS=f"mnist-classifier={bundle},{name}",
        MLFLOW_TRACKING_URI=f"sqlite:///{clone.folder}/mlflow.db",
        API_WORKERS=1,
    )


def asked(service, model, files):
    """The answers to picture files, by file."""
    with service.client() as api:
        found = {}
        for file in files:
            given = api.post("/predict", params={"model": model}, files={"file": file.read_bytes()})
            assert given.status_code == 200, given.text
            found[file] = given.json()
        return found


def shown(browser, service, model, file):
    """What the page says of a picture file."""
    tab = browser.new_page()
    try:
        tab.goto(f"{service.url}/?model={model}")
        expect(tab.locator("#model-name")).to_contain_text(f"{model}, version 1")
        tab.locator("#file").set_input_files(str(file))
        expect(tab.locator("#digit")).not_to_have_text("?")
        return tab.locator("#digit").inner_text()
    finally:
        tab.close()


def require_served(clone, browser, bundle, tmp_path, name, files):
    """Most pictures get their class; the page says the same; digits are still read."""
    assert clone.run("git", "diff", "--stat", "HEAD~1", "--", "*.py") == ""
    folder = tmp_path / "service"
    folder.mkdir()
    service = served(clone, bundle, name, folder)
    try:
        service.ready()
        with service.client() as api:
            # Ready is the first model; the other comes from the registry.
            until(lambda: api.get("/health").json()["status"] == "healthy", service, seconds=120)
            assert api.get(f"/v2/models/{name}/ready").status_code == 200
        answers = asked(service, name, files)
        right = [file for file in files if answers[file]["prediction"] == files[file]]
        assert len(right) >= 0.8 * len(files)
        assert shown(browser, service, name, right[0]) == files[right[0]]
    finally:
        service.stop()


@pytest.mark.slow
@pytest.mark.system("chromium", "chromium")
def test_shapes_in_colour(clone, browser, made, tmp_path):
    clone.run("python", "-m", "docs.examples.shapes", "data/forms")
    told = built(clone, "forms", "data/forms")
    assert "forms version 1 is the champion" in told
    folders = sorted((clone.folder / "data/forms").iterdir())
    files = {file: folder.name for folder in folders for file in sorted(folder.iterdir())[:3]}
    require_served(clone, browser, made[3], tmp_path, "forms", files)


@pytest.mark.slow
@pytest.mark.system("chromium", "chromium")
def test_handwritten_letters_of_writers_never_seen(clone, browser, made, tmp_path):
    if not LETTERS.exists():
        pytest.skip("needs the letters in ../shared/omniglot")
    inner = f"{LETTERS}/images_background_small2/Latin"
    options = ("--names", NAMES, "--group", WRITER, "--size", "32")
    assert "mine version 1 is the champion" in built(clone, "mine", inner, *options)
    metrics = json.loads(clone.read("reports/metrics.json"))
    assert metrics["test_accuracy"] >= 0.8  # of 3 of the 20 writers
    files = letters(tmp_path / "letters")
    require_served(clone, browser, made[3], tmp_path, "mine", files)


def letters(folder: Path):
    """Some pictures of the zip as files, with their letters."""
    folder.mkdir()
    found = {}
    with zipfile.ZipFile(LETTERS) as archive:
        for name in sorted(archive.namelist()):
            if "/Latin/" in name and name.endswith("_03.png"):
                file = folder / Path(name).name
                file.write_bytes(archive.read(name))
                found[file] = chr(ord("a") + int(name.split("character")[1][:2]) - 1)
    return found
