"""Three models in one service as a process: digits, colours and letters, by programs and the page.

Pictures of what the page looked like are left in `build/screenshots`.
"""

import json
import string

import numpy as np
import pytest
from playwright.sync_api import expect
from support.bundles import COLOURS, PNG, colour_picture, picture
from support.service_process import ROOT, Process
from websockets.sync.client import connect

SCREENSHOTS = ROOT / "build" / "screenshots"
NAMES = ["mnist-classifier", "colours", "letters"]
pytestmark = pytest.mark.system("chromium", "chromium")
expect.set_options(timeout=60_000)  # for a machine that does much else


@pytest.fixture(scope="module")
def service(made, colours, letters, tmp_path_factory):
    folders = zip(NAMES, (made[3], colours, letters), strict=True)
    models = ",".join(f"{name}={folder}" for name, folder in folders)
    running = Process(tmp_path_factory.mktemp("service"), MODELS=models, API_WORKERS=2)
    running.ready()
    yield running
    running.stop()


@pytest.fixture
def tab(browser, service):
    """A tab at the page; at the end nothing may have gone wrong unseen."""
    tab, complaints = browser.new_page(viewport={"width": 1280, "height": 900}), []
    tab.set_default_timeout(60_000)
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))

    def at(model=""):
        tab.goto(f"{service.url}/?model={model}" if model else service.url)
        expect(tab.locator("#model-name")).to_contain_text(f"{model or NAMES[0]}, version")
        return tab

    yield at
    tab.close()
    assert complaints == []


def show(tab, content, name="shown.png"):
    tab.locator("#file").set_input_files({"name": name, "mimeType": "image/png", "buffer": content})


def draw(tab, *points):
    box = tab.locator("#canvas").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    tab.mouse.move(*places[0])
    tab.mouse.down()
    for place in places[1:]:
        tab.mouse.move(*place, steps=8)
    tab.mouse.up()


def leave(tab, name):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def test_programs_reach_each_model(service):
    with service.client() as api:
        for model, content, expected in (
            ("", picture(), 3),
            ("colours", colour_picture(COLOURS["blue"]), "blue"),
            ("letters", colour_picture((255, 255, 255)), "Z"),
        ):
            answer = api.post("/predict", params={"model": model}, content=content, headers=PNG)
            assert answer.json()["prediction"] == expected
            address = service.url.replace("http", "ws")
            with connect(f"{address}/predict/stream?model={model}", proxy=None) as socket:
                socket.send(content)
                assert json.loads(socket.recv())["prediction"] == expected
            name = model or NAMES[0]
            shape = api.get(f"/v2/models/{name}").json()["inputs"][0]["shape"]
            image = np.zeros([1, *shape[1:]], np.uint8)
            image[:, 4:-4, 13:15] = 255
            tensor = {"name": "image", "datatype": "UINT8", "shape": list(image.shape)}
            body = {"inputs": [tensor | {"data": image.reshape(-1).tolist()}]}
            found = api.post(f"/v2/models/{name}/infer", json=body).json()
            assert found["model_name"] == name
            labels = next(
                each["labels"]
                for each in api.get("/api/info").json()["models"]
                if each["model"] == name
            )
            assert found["outputs"][1]["data"][0] in labels


def test_feedback_of_each_model_reaches_another_worker(service):
    with service.client(headers={"connection": "close"}) as api:
        for model, label in (("", 7), ("colours", "green"), ("letters", "Q")):
            query = {"model": model}
            answer = api.post("/predict", params=query, content=picture(), headers=PNG).json()
            body = {"request_id": answer["request_id"], "label": label}
            for _ in range(4):
                told = api.post("/feedback", params=query, json=body)
                assert (told.status_code, told.json()["label"]) == (200, label)


def test_the_page_of_digits_offers_the_other_models(tab):
    page = tab()
    expect(page.locator("#title")).to_have_text("Draw a digit")
    assert page.locator("#models option").all_inner_texts() == NAMES
    draw(page, (0.5, 0.2), (0.5, 0.8))
    expect(page.locator("#digit")).to_have_text("3")
    expect(page.locator("#bars li")).to_have_count(10)
    leave(page, "models-digits")


def test_a_letter_is_drawn_dark_on_white(tab, service):
    page = tab("letters")
    expect(page.locator("#title")).to_have_text("Draw a letter")
    expect(page.locator("#examples")).to_be_hidden()
    draw(page, (0.2, 0.8), (0.5, 0.2), (0.8, 0.8))
    expect(page.locator("#digit")).to_have_text("Y")  # nearly white: only Z is lighter
    expect(page.locator("#bars li")).to_have_count(10)
    expect(page.locator("#bars li.best .name")).to_have_text("Y")
    assert page.locator("#digits button").all_inner_texts() == [*string.ascii_uppercase]
    page.locator("#digits button", has_text="A").click()
    expect(page.locator("#thanks")).to_have_text("Thank you: kept as A.")
    page.locator("#steps").click()
    expect(page.locator("#step-size")).to_contain_text("28")
    expect(page.locator("#step-ink")).to_be_hidden()
    expect(page.locator("#step-scores")).to_contain_text("for Y")
    leave(page, "models-letters")


def test_a_picture_in_colour_is_shown_and_named(tab):
    page = tab("colours")
    expect(page.locator("#title")).to_have_text("Show a picture")
    expect(page.locator("#photograph")).to_be_visible()
    draw(page, (0.2, 0.2), (0.8, 0.8))
    expect(page.locator("#clear")).to_be_disabled()  # nothing was drawn
    show(page, colour_picture((180, 60, 40), (90, 60)))
    expect(page.locator("#digit")).to_have_text("red")
    assert page.locator("#bars .name").all_inner_texts() == list(COLOURS)
    seen = page.evaluate(
        "[...document.getElementById('seen').getContext('2d').getImageData(16, 16, 1, 1).data]"
    )
    assert seen == [180, 60, 40, 255]
    page.locator("#why").click()
    expect(page.locator("#map")).to_have_attribute(
        "alt", "The picture as the model saw it, what it rests on in orange"
    )
    leave(page, "models-colours")
    page.locator("#none").click()
    expect(page.locator("#thanks")).to_have_text("Thank you: kept as none of these.")
    page.locator("#confirm").click()
    expect(page.locator("#thanks")).to_have_text("Thank you.")


def test_another_model_is_chosen_on_the_page(tab):
    page = tab()
    page.locator("#models").select_option("colours")
    expect(page.locator("#title")).to_have_text("Show a picture")
    expect(page.locator("#model-name")).to_contain_text("colours, version")
    show(page, colour_picture(COLOURS["green"]))
    expect(page.locator("#digit")).to_have_text("green")
    page.locator("#models").select_option("mnist-classifier")
    expect(page.locator("#title")).to_have_text("Draw a digit")
    expect(page.locator("#digit")).to_have_text("?")
    show(page, picture())
    expect(page.locator("#digit")).to_have_text("3")
