"""The docs as a site: `mkdocs build --strict` makes it, and it asks no other host."""

import functools
import http.server
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.chromium import chromium
from support.documents import NAMES, ROOT, document
from support.web_server import serving

from docs.tools import hooks

MERMAID = ROOT / "build" / "mermaid.min.js"


def build(folder):
    (command,) = re.findall(r"^\t(.*mkdocs build .*)$", (ROOT / "Makefile").read_text(), re.M)
    return subprocess.run(
        ["env", *command.split(), "--site-dir", folder],
        cwd=ROOT,
        # Python's warnings are errors in tests, and MkDocs has some of its own.
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONWARNINGS": "",
        },
        check=True,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    try:
        done = build(folder)
        assert "\x1b" not in done.stderr
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stderr)
    return folder


def page(name):
    """Return the page of a document in the site."""
    return hooks.place(name).removesuffix(".md") + ".html"


PAGES = [name for name in NAMES if name.count("/") == 0 or name.startswith("docs/")]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_its_tables_and_loads_nothing_from_elsewhere(site, name):
    html = (site / page(name)).read_text()
    tables = [token for token in document(name).tokens if token.type == "table_open"]
    assert html.count("<table>") == len(tables)
    tags = re.findall(r"<(?:script|img|iframe|link)\b[^>]*>", html)
    loaded = [tag for tag in tags if not re.search(r'rel="?canonical', tag)]
    assert loaded
    assert [tag for tag in loaded if re.search(r'(?:src|href)="?(?:https?:)?//', tag)] == []


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.slow
@pytest.mark.system("npm", "npm")
@pytest.mark.system("chromium", "chromium")
def test_a_browser_shows_every_page_and_diagram(tmp_path):
    subprocess.run(["make", str(MERMAID.relative_to(ROOT))], cwd=ROOT, check=True)
    build(tmp_path)
    serve = functools.partial(Handler, directory=tmp_path)
    faults, requests = [], []
    with serving(serve) as server, chromium() as browser:
        own = f"{server.url}/"
        for name in PAGES:
            shown = browser.new_page(viewport={"width": 1280, "height": 900})
            shown.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
            shown.on("pageerror", lambda error: faults.append(str(error)))
            shown.on("request", lambda r: requests.append(r.url))
            shown.goto(own + page(name))
            diagrams = [block for block in document(name).blocks() if block.language == "mermaid"]
            shown.wait_for_function(
                "n => document.querySelectorAll('div.mermaid').length === n", arg=len(diagrams)
            )
            heights = shown.eval_on_selector_all(
                "div.mermaid", "all => all.map(each => each.getBoundingClientRect().height)"
            )
            assert all(height > 30 for height in heights)
            # Only tables are wider than the page, and they scroll by themselves.
            assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
            shown.close()
    assert faults == []
    assert [url for url in requests if not url.startswith((own, "data:"))] == []
