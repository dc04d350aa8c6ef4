"""The page is whole, comes from this service alone and does nothing that its policy forbids."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.bundles import picture

STATIC = Path(__file__).parents[3] / "serve" / "static"
FILES = sorted(str(path.relative_to(STATIC)) for path in STATIC.rglob("*.*"))
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg"}
TYPES |= {".png": "image/png", ".jpg": "image/jpeg"}


class Elements(HTMLParser):
    """All elements of a page: name and attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def elements():
    return Elements((STATIC / "index.html").read_text()).found


def test_it_is_served_with_a_strict_policy(client):
    page = client().get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_each_of_its_files_is_served_as_what_it_is(client):
    api = client()
    for name in FILES:
        response = api.get("/" if name == "index.html" else f"/static/{name}")
        assert response.status_code == 200, name
        assert response.headers["content-type"].startswith(TYPES[Path(name).suffix]), name
        assert response.content == (STATIC / name).read_bytes(), name


def test_what_the_browser_has_already_is_not_sent_again(client):
    api, policy = client(), "content-security-policy"
    for path in ("/", "/static/pad.js", "/api/docs/assets/swagger-ui.css"):
        first = api.get(path)
        for tag in (first.headers["etag"], f'"old", W/{first.headers["etag"]}'):
            again = api.get(path, headers={"if-none-match": tag})
            assert (again.status_code, again.content) == (304, b""), path
            assert again.headers["etag"] == first.headers["etag"], path
        assert again.headers.get(policy) == first.headers.get(policy), path
        assert api.get(path, headers={"if-none-match": '"old"'}).content == first.content, path


@pytest.mark.parametrize("path", ["/", "/static/pad.js"])
def test_a_bad_range_is_an_error_as_all_are(client, path):
    api = client()
    whole = api.get(path).content
    part = api.get(path, headers={"range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, whole[1:4])
    for value, status in (("nonsense", 400), ("bytes=3-1", 400), ("bytes=9999999-", 416)):
        refused = api.get(path, headers={"range": value})
        assert (refused.status_code, set(refused.json())) == (status, {"detail"})
        assert refused.headers["x-request-id"]
    assert refused.headers["content-range"] in (f"bytes */{len(whole)}", f"*/{len(whole)}")


def test_it_asks_for_no_key_that_it_could_not_send(client):
    api = client(api_keys="secret")
    assert api.get("/").status_code == 200
    assert {api.get(f"/static/{name}").status_code for name in FILES} == {200}
    assert api.get("/api/info").json()["limits"]["api_key_required"] is True


def test_addresses_are_relative(elements):
    """So that it works below a path, behind a proxy."""
    given = [value for _, a in elements for name, value in a.items() if name in ("src", "href")]
    assert given
    assert not [value for value in given if value.startswith("/")]


def test_the_scripts_write_text_and_never_markup():
    scripts = "".join((STATIC / name).read_text() for name in FILES if name.endswith(".js"))
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", scripts
    )
    assert ".error" not in scripts  # errors are `detail`


def test_every_control_has_a_name_and_every_id_is_there(elements):
    ids = {attributes["id"] for _, attributes in elements if "id" in attributes}
    scripts = "".join((STATIC / name).read_text() for name in FILES if name.endswith(".js"))
    assert set(re.findall(r'\bat\("([\w-]+)"\)', scripts)) <= ids
    for tag, attributes in elements:
        if tag in ("input", "canvas"):
            labelled = {a["for"] for kind, a in elements if kind == "label"}
            assert "aria-label" in attributes or attributes["id"] in labelled
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert attributes.get(name) is None or attributes[name] in ids


def test_an_answer_shows_what_the_model_saw_where_asked(client):
    api, png = client(), picture()
    asked = {"content": png, "headers": {"content-type": "image/png"}}
    assert "image" not in api.post("/predict", **asked).json()
    assert "image" not in api.post("/predict?image=false", **asked).json()
    shown = api.post("/predict?image=true", **asked).json()["image"]
    assert shown.startswith("data:image/png;base64,")
    # What the model saw is normalised already: read again, it is the same.
    again = api.post("/predict?image=true", json={"image": shown}).json()
    assert again["image"] == shown
    with api.websocket_connect("/predict/stream?image=true") as socket:
        socket.send_bytes(png)
        assert socket.receive_json()["image"] == shown
