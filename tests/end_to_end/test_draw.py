"""The page at `/` in a real browser, on a real service with a model that the pipeline made.

Pictures of what it looked like are left in `build/screenshots`.
"""

import io
import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import expect
from support.bundles import PNG
from support.pen_strokes import STROKES, smooth
from support.service_process import ROOT, Process

SCREENSHOTS = ROOT / "build" / "screenshots"
SEVEN = ROOT / "docs" / "images" / "seven.png"
RIGHT = 8  # of ten, by a model that has seen 1,257 small scans
pytestmark = [pytest.mark.slow, pytest.mark.system("chromium", "chromium")]
expect.set_options(timeout=60_000)  # for a machine that does much else


@pytest.fixture(scope="module")
def bundle(rebuilt):
    return rebuilt.folder / "models" / "champion"


@pytest.fixture(scope="module")
def service(bundle, tmp_path_factory):
    running = Process(tmp_path_factory.mktemp("service"), MODEL_URI=bundle, API_WORKERS=1)
    running.ready()
    yield running
    running.stop()


def with_threshold(bundle, folder, threshold):
    """A copy of the bundle for which less than this likelihood is no digit."""
    shutil.copytree(bundle, folder)
    described = json.loads((folder / "model.json").read_text())
    described["likelihood"]["threshold"] = threshold
    (folder / "model.json").write_text(json.dumps(described))
    return folder


@pytest.fixture
def start(tmp_path):
    """Starts a service; it outlives the pages, which would complain of its end."""
    started = []

    def begin(**environment):
        started.append(Process(tmp_path, API_WORKERS=1, **environment))
        started[-1].ready()
        return started[-1]

    yield begin
    for running in started:
        running.stop()


@pytest.fixture
def guarded(start, bundle, tmp_path):
    """A service that needs a key and is never sure; all that it sees is a digit."""
    folder = with_threshold(bundle, tmp_path / "lenient", 0)
    return start(MODEL_URI=folder, API_KEYS="secret", CONFIDENCE_THRESHOLD="1")


@pytest.fixture
def strict(start, bundle, tmp_path):
    """A service with a bundle for which nothing looks enough like a digit."""
    return start(MODEL_URI=with_threshold(bundle, tmp_path / "strict", 1.01))


class Page:
    """The page as a person uses it; at the end nothing may have gone wrong unseen."""

    def __init__(self, browser, url, *, prepare=None, width=1280, height=800, **options):
        self.tab = browser.new_page(viewport={"width": width, "height": height}, **options)
        self.tab.set_default_timeout(60_000)
        self.complaints, self.asked, self.sent = [], [], []
        self.tab.on("console", self.hear)
        self.tab.on("websocket", lambda socket: socket.on("framesent", self.note_frame))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        if prepare:
            prepare(self.tab)
        self.url = url
        self.tab.goto(url)
        expect(self.tab.locator("#model-name")).to_contain_text("version")

    def note_frame(self, frame):
        """Note a frame sent over the WebSocket; Playwright cannot mark a method of a list."""
        self.sent.append(frame)

    def hear(self, message):
        """Note a console message, unless it is the browser's about the WebSocket's fallback.

        Where the WebSocket is not open (yet), as on a slow host, the page asks by requests. The
        browser then reports each answer that is an error, as 422 for a line too short yet.
        """
        unread = "Failed to load resource: the server responded with a status of 422"
        asked = message.location.get("url", "").endswith("/predict?image=true")
        if not (asked and message.text.startswith(unread)):
            self.complaints.append(message.text)

    def at(self, name):
        return self.tab.locator(f"#{name}")

    def places(self, line):
        """A stroke's points on the screen."""
        box = self.at("canvas").bounding_box()
        return [
            (box["x"] + x * box["width"] / 280, box["y"] + y * box["height"] / 280)
            for x, y in smooth(line)
        ]

    def draw(self, digit):
        mouse = self.tab.mouse
        for line in STROKES[digit]:
            first, *others = self.places(line)
            mouse.move(*first)
            mouse.down()
            for place in others:
                mouse.move(*place)
            mouse.up()
        self.settled()

    def touch(self, digit):
        """With a finger, which would scroll the page if the page let it."""
        fingers = self.tab.context.new_cdp_session(self.tab)

        def send(kind, *points):
            fingers.send(
                "Input.dispatchTouchEvent",
                {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]},
            )

        for line in STROKES[digit]:
            first, *others = self.places(line)
            send("touchStart", first)
            for place in others:
                send("touchMove", place)
            send("touchEnd")
        self.settled()

    def settled(self):
        expect(self.at("answer")).to_have_attribute("aria-busy", "false")

    def live(self, state="live"):
        expect(self.at("light")).to_have_attribute("data-on", state)

    @property
    def digit(self):
        return self.at("digit").inner_text()

    @property
    def state(self):
        return self.at("answer").get_attribute("data-state")

    def saw(self):
        """How bright the 28x28 is that is shown."""
        return self.tab.evaluate(
            """() => {
                const pen = new OffscreenCanvas(28, 28).getContext("2d");
                pen.drawImage(document.getElementById("seen"), 0, 0);
                const { data } = pen.getImageData(0, 0, 28, 28);
                return data.filter((_, place) => place % 4 === 0).reduce((sum, v) => sum + v, 0);
            }"""
        )

    def give(self, event, picture, name="seven.png", kind="image/png"):
        """Pastes or drops a file, as the browser would tell the page."""
        self.tab.evaluate(
            """([event, bytes, name, type]) => {
                const given = new DataTransfer();
                given.items.add(new File([new Uint8Array(bytes)], name, { type }));
                const options = { bubbles: true, cancelable: true };
                document.body.dispatchEvent(event === "paste"
                    ? new ClipboardEvent(event, { ...options, clipboardData: given })
                    : new DragEvent(event, { ...options, dataTransfer: given }));
            }""",
            [event, list(picture), name, kind],
        )

    def upload(self, content, name="seven.png", kind="image/png"):
        file = {"name": name, "mimeType": kind, "buffer": content}
        self.at("file").set_input_files(file)
        expect(self.at("canvas")).to_have_attribute("aria-label", re.compile(re.escape(name)))
        self.settled()

    def keep(self, name):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.tab.wait_for_timeout(250)  # bars glide
        self.tab.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    def fits(self):
        wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return self.tab.evaluate(wider) <= 0

    def close(self):
        self.tab.close()


@pytest.fixture
def visit_any(browser, start):  # `start`: pages are closed before its services
    """Opens the page; nothing of another host may be asked for, nothing may be complained of."""
    opened = []

    def begin(url, **options):
        page = Page(browser, url, **options)
        opened.append(page)
        return page

    yield begin
    for page in opened:
        page.close()
    for page in opened:
        assert page.complaints == []
        assert not [url for url in page.asked if not url.startswith((page.url, "blob:", "data:"))]


@pytest.fixture
def visit(visit_any, service):
    """Opens the page of the service, or another."""
    return lambda url=service.url, **options: visit_any(url, **options)


def png(image):
    with io.BytesIO() as file:
        image.save(file, "PNG")
        return file.getvalue()


def test_the_model_card_says_how_good_it_is(visit):
    page = visit(width=400)
    about = page.at("about")
    expect(about.get_by_text("Intended use")).to_be_hidden()
    about.locator("summary").click()
    expect(about.get_by_role("heading", name="Intended use")).to_be_visible()
    assert about.get_by_role("row").filter(has_text="canny edges").count() == 1
    assert not any("|" in text for text in page.at("card").locator("p").all_inner_texts())
    assert page.fits()
    page.keep("card")


def test_each_digit_is_read_while_it_is_drawn(visit):
    page = visit()
    page.live()
    page.keep("empty")
    read = {}
    for digit in STROKES:
        page.draw(digit)
        read[digit] = page.digit
        assert page.state in ("sure", "unsure")
        assert page.saw() > 5000
        shares = page.at("bars").locator(".value").all_inner_texts()
        assert len(shares) == 10
        assert all(share.endswith("%") for share in shares)
        page.keep(f"digit-{digit}")
        page.tab.keyboard.press("Escape")
        expect(page.at("digit")).to_have_text("?")
        assert page.saw() == 0
    assert sum(read[digit] == str(digit) for digit in read) >= RIGHT, read
    assert len(page.sent) >= len(STROKES)  # over the WebSocket


def test_what_may_be_no_digit_is_said_kindly(visit, strict):
    page = visit(strict.url)
    page.live()
    page.draw(7)
    expect(page.at("sure")).to_have_text("This may not be a digit")
    expect(page.at("note")).to_contain_text(f"a {page.digit} comes closest".replace("a 8", "an 8"))
    assert page.state == "unsure"
    assert page.at("confirm").is_enabled()  # the answer stands, and can be told right
    page.keep("no-digit")
    with page.tab.expect_response("**/feedback") as response:
        page.at("none").click()
    assert response.value.json()["label"] is None
    expect(page.at("thanks")).to_have_text("Thank you: kept as no digit.")
    page.keep("none-of-these")


@pytest.mark.parametrize("way", ["upload", "paste", "drop"])
def test_a_picture_is_read(visit, way):
    page = visit()
    content = SEVEN.read_bytes()
    if way == "upload":
        page.upload(content)
    else:
        page.give(way, content)
    expect(page.at("digit")).to_have_text("7")
    expect(page.at("canvas")).to_have_attribute("aria-label", re.compile("seven.png"))
    page.keep(way)
    page.draw(1)  # takes its place
    expect(page.at("canvas")).to_have_attribute("aria-label", "Drawing area, one line")
    page.tab.keyboard.press("Control+z")
    expect(page.at("digit")).to_have_text("7")


def boxed(page, box, size):
    """Whether all four edges of the box are painted over the picture of that size."""
    left, top, width, height = (side * 280 / max(size) for side in box)
    middle = (left + width / 2, top + height / 2)
    edges = [(left - 2, middle[1]), (left + width + 2, middle[1])]
    edges += [(middle[0], top - 2), (middle[0], top + height + 2)]
    return page.tab.evaluate(
        """(edges) => {
            const canvas = document.getElementById("canvas");
            const side = canvas.width;
            const { data } = canvas.getContext("2d").getImageData(0, 0, side, side);
            return edges.every(([x, y]) => {
                const [column, row] = [x, y].map((place) => Math.round((place * side) / 280));
                const [red, , blue] = data.slice(4 * (row * side + column));
                return blue > red + 60;
            });
        }""",
        edges,
    )


def test_the_page_shows_on_demand_why_and_how_a_picture_was_read(visit_any, counting):
    page = visit_any(counting.url)
    page.live()
    page.upload(SEVEN.read_bytes())
    with counting.client() as api:
        asked = api.post("/predict", content=SEVEN.read_bytes(), headers=PNG).json()
    with Image.open(SEVEN) as picture:
        assert boxed(page, asked["box"].values(), picture.size)
    expect(page.at("map")).to_be_hidden()
    page.at("why").click()
    expect(page.at("map-words")).to_contain_text("what the answer rests on")
    expect(page.at("map")).to_have_js_property("naturalWidth", 224)
    page.at("steps").click()
    for name, longest in (("picture", 240), ("ink", 240), ("image", 28)):
        image = page.at(f"step-{name}")
        expect(image).to_be_visible()
        size = image.evaluate("image => [image.naturalWidth, image.naturalHeight]")
        assert longest / 2 < max(size) <= longest
    expect(page.at("step-scores")).to_contain_text("for a 3")
    page.keep("explained")
    with page.tab.expect_response("**/explain") as response:
        page.draw(1)  # what is open follows the drawing
    assert response.value.status == 200
    expect(page.at("explanation")).to_have_attribute("aria-busy", "false")
    with counting.client() as api:
        lines = api.get("/metrics").text.splitlines()
    (counted,) = (line for line in lines if line.startswith("predictions_total{"))
    assert counted.endswith(" 3.0")  # explanations do not count
    page.tab.keyboard.press("Escape")
    expect(page.at("steps-panel")).to_be_hidden()
    expect(page.at("why")).to_be_disabled()


def test_an_explanation_that_failed_is_asked_for_again(visit):
    page = visit()
    page.upload(SEVEN.read_bytes())
    page.tab.route("**/explain", lambda route: route.fulfill(status=503, json={"detail": "busy"}))
    page.at("why").click()
    expect(page.at("explained")).to_have_text("Not explained: busy.")
    page.tab.unroute("**/explain")
    page.at("why").click()
    page.at("why").click()
    expect(page.at("map-words")).not_to_be_empty()
    expect(page.at("explained")).to_be_empty()
    page.complaints.clear()  # of the browser, about the 503


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_an_explanation_fits(visit_any, counting, width):
    page = visit_any(counting.url, width=width, color_scheme="dark")
    page.upload(SEVEN.read_bytes())
    page.at("why").click()
    page.at("steps").click()
    expect(page.at("step-scores")).to_contain_text("%")
    assert page.fits()
    page.keep(f"explained-{width}")


def test_an_example_is_read_before_anything_is_drawn(visit):
    page = visit()
    for button in page.at("examples").get_by_role("button").all():
        button.click()
        name = re.escape(button.locator("img").get_attribute("alt"))
        expect(page.at("canvas")).to_have_attribute("aria-label", re.compile(name))
        expect(page.at("sure")).not_to_have_text("Nothing drawn yet")
    page.keep("example")


def test_a_photo_too_large_to_send_is_made_smaller(visit):
    page = visit()
    photo = Image.new("RGB", (5000, 4000), "#d8cfb8")
    ImageDraw.Draw(photo).line([(2500, 1200), (2500, 2800)], "#222233", 120)
    page.upload(png(photo), "photo.png")
    expect(page.at("digit")).to_have_text("1")


def test_an_answer_is_confirmed_and_corrected(visit):
    page = visit()
    page.draw(5)
    read = page.digit
    page.at("confirm").click()
    expect(page.at("thanks")).to_have_text("Thank you.")
    expect(page.at("confirm")).to_have_attribute("aria-pressed", "true")
    page.keep("confirmed")
    other = "3" if read != "3" else "5"
    with page.tab.expect_response("**/feedback") as response:
        page.tab.get_by_label(f"No, it is a {other}").click()
    kept = response.value.json()
    assert (kept["label"], kept["prediction"], kept["correct"]) == (int(other), int(read), False)
    expect(page.at("thanks")).to_have_text(f"Thank you: kept as a {other}.")
    page.keep("corrected")
    page.draw(1)
    expect(page.at("thanks")).to_have_text("")


@pytest.mark.parametrize(
    ("content", "name", "title"),
    [
        (b"no picture", "notes.txt", "Not a picture|Another kind of file"),
        (b"%PDF-1.7", "scan.pdf", "Another kind of file"),
        (b"", "nothing.png", "Not a picture"),
        (bytes(6 << 20), "large.bin", "Too large"),
    ],
)
def test_what_cannot_be_read_is_said_in_words(visit, content, name, title):
    page = visit()
    page.upload(content, name, "application/octet-stream")
    expect(page.at("sure")).to_have_text(re.compile(title))
    expect(page.at("name-only")).to_have_text(name)
    expect(page.at("confirm")).to_be_disabled()
    page.keep(f"fault-{Path(name).stem}")
    page.tab.keyboard.press("Escape")
    expect(page.at("sure")).to_have_text("Nothing drawn yet")


def test_an_empty_picture_gets_a_hint_and_no_error(visit):
    page = visit()
    page.upload(png(Image.new("L", (200, 200), 255)), "blank.png")
    assert page.state == "hint"
    expect(page.at("sure")).to_have_text("No digit found")
    page.keep("blank")


def test_all_of_it_by_keys(visit):
    page = visit()
    keys = page.tab.keyboard
    keys.press("Tab")
    assert page.tab.evaluate("document.activeElement.id") == "canvas"
    for key, times in (("ArrowUp", 9), ("Space", 1), ("ArrowDown", 17), ("Space", 1)):
        for _ in range(times):
            keys.press(key)
    page.settled()
    expect(page.at("digit")).to_have_text("1")
    expect(page.at("spoken")).to_contain_text("1, ")  # what a screen reader hears
    page.keep("keys")
    keys.press("Control+z")
    expect(page.at("digit")).to_have_text("?")
    expect(page.at("undo")).to_be_disabled()


@pytest.fixture
def counting(start, made):
    """A service of which nothing was asked yet."""
    return start(MODEL_URI=made[3])


@pytest.mark.parametrize("route", ["socket", "requests"])
def test_a_line_counts_once_it_is_drawn(visit_any, counting, route):
    def without_sockets(tab):
        if route == "requests":
            tab.route_web_socket(re.compile("/predict/stream"), lambda socket: socket.close())

    page = visit_any(counting.url, prepare=without_sockets)
    page.live("live" if route == "socket" else "single")

    def counted():
        with counting.client() as api:
            lines = api.get("/metrics").text.splitlines()
        return sum(
            float(line.split()[-1]) for line in lines if line.startswith("predictions_total{")
        )

    first, *others = page.places([(140, 40), (140, 240)])
    page.tab.mouse.move(*first)
    page.tab.mouse.down()
    for place in others:
        page.tab.mouse.move(*place)
        page.tab.wait_for_timeout(80)  # longer than between two questions
    expect(page.at("digit")).to_have_text("3")
    page.settled()
    assert counted() == 0
    page.tab.mouse.up()
    page.settled()
    assert counted() == 1
    page.at("confirm").click()
    expect(page.at("thanks")).to_have_text("Thank you.")
    page.tab.keyboard.press("Escape")
    page.at("canvas").focus()
    for key in ("Space", *["ArrowDown"] * 9):
        page.tab.keyboard.press(key)
    expect(page.at("digit")).to_have_text("3")
    page.settled()
    assert counted() == 1
    page.tab.keyboard.press("Tab")  # leaves the pen where it is
    page.settled()
    assert counted() == 2


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1600])
def test_it_fits(visit, width):
    page = visit(width=width, height=800, color_scheme="light")
    assert page.fits()
    page.draw(4)
    assert page.fits()
    page.keep(f"width-{width}")


def test_with_a_finger_on_a_phone(visit):
    page = visit(width=390, height=664, has_touch=True, is_mobile=True, device_scale_factor=3)
    page.live()
    page.touch(2)
    assert page.tab.evaluate("scrollY") == 0
    expect(page.at("canvas")).to_have_attribute("aria-label", "Drawing area, one line")
    assert page.state in ("sure", "unsure")
    below = page.at("digit").bounding_box()
    assert below["y"] + below["height"] < 664  # seen while drawing
    assert page.fits()
    page.keep("phone")


def test_with_a_phone_held_sideways_the_answer_stands_beside_the_drawing(visit):
    page = visit(width=667, height=375, has_touch=True, is_mobile=True, color_scheme="dark")
    expect(page.at("confirm")).to_be_hidden()  # nothing to confirm yet
    page.touch(2)
    board, digit = (page.at(each).bounding_box() for each in ("board", "digit"))
    assert digit["x"] > board["x"] + board["width"]
    assert board["y"] + board["height"] < 375
    assert page.fits()
    page.keep("phone-sideways")


def test_without_javascript_a_picture_can_be_sent(browser, service):
    tab = browser.new_page(java_script_enabled=False)
    tab.goto(service.url)
    expect(tab.locator("main")).to_be_hidden()
    tab.locator("#plain").set_input_files(SEVEN)
    tab.screenshot(path=SCREENSHOTS / "no-script.png")
    tab.get_by_role("button", name="Read it").click()
    expect(tab.locator("body")).to_contain_text('"prediction":7')
    tab.close()


def test_a_service_that_hangs_is_told_and_its_answer_still_comes(visit, counting):
    page = visit(counting.url)
    page.live()
    everyone = [counting.process.pid, *counting.children()]
    for process in everyone:
        os.kill(process, signal.SIGSTOP)
    first, *others = page.places(STROKES[1][0])
    page.tab.mouse.move(*first)
    page.tab.mouse.down()
    page.tab.mouse.move(*others[-1])
    page.tab.mouse.up()
    expect(page.at("sure")).to_have_text("Reading…")
    expect(page.at("sure")).to_have_text("No answer yet")
    page.live("none")
    expect(page.at("connection")).to_have_text("Not connected")
    page.keep("hangs")
    for process in everyone:
        os.kill(process, signal.SIGCONT)
    expect(page.at("digit")).to_have_text("3")
    expect(page.at("connection")).to_contain_text("Connected")


def test_a_service_with_keys_that_is_unsure_and_then_gone(browser, guarded):
    page = Page(browser, guarded.url)
    expect(page.at("key")).to_be_visible()
    page.keep("key")
    for key, title in (("", "A key is needed"), ("wrong", "This key is not right")):
        if key:
            page.at("key-value").fill(key)
            page.at("key-value").press("Enter")
        page.draw(1)
        expect(page.at("sure")).to_have_text(title)
    page.at("clear").click()
    expect(page.at("spoken")).to_have_text("Cleared")
    page.complaints.clear()  # of the browser, about answers that are 401
    page.at("key-value").fill("secret")
    page.at("key-value").press("Enter")
    page.live()
    page.draw(9)
    assert page.state == "unsure"
    assert page.at("sure").inner_text().startswith("Unsure")
    assert "could also be" in page.at("note").inner_text()
    page.keep("unsure")
    assert page.complaints == []

    guarded.stop()
    page.live("single")
    page.tab.keyboard.press("Escape")
    page.draw(1)
    expect(page.at("sure")).to_have_text("No connection")
    page.keep("gone")
    page.close()
