"""The docs as a site: `mkdocs build --strict` makes it, and it asks no other host."""

import functools
import http.server
import os
import re
import subprocess
import sys
import threading

import pytest
from support.chromium import chromium
from support.documents import NAMES, ROOT, document

from docs.tools import hooks

MERMAID = ROOT / "build" / "mermaid.min.js"


def build(folder):
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        # Python's warnings are errors in tests, and MkDocs has some of its own.
        env={**os.environ, "PYTHONWARNINGS": "", "NO_MKDOCS_2_WARNING": "1"},
        check=True,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    try:
        build(folder)
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stderr)
    return folder


def page(name):
    """Return the page of a document in the site."""
    return hooks.place(name).removesuffix(".md") + ".html"


PAGES = [name for name in NAMES if name.count("/") == 0 or name.startswith("docs/")]


@pytest.mark.parametrize("name", PAGES)
def test_a_document_is_a_page_with_its_tables(site, name):
    html = (site / page(name)).read_text()
    assert html.count("<table>") == [token.type for token in document(name).tokens].count(
        "table_open"
    )


@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_nothing_from_elsewhere(site, name):
    html = (site / page(name)).read_text()
    loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="?([^" >]+)', html)
    loaded += re.findall(
        r'<link[^>]*rel="?(?:stylesheet|preconnect|icon)[^>]*href="?([^" >]+)', html
    )
    loaded += re.findall(r'<link[^>]*href="?([^" >]+)"?[^>]*rel="?stylesheet', html)
    assert loaded
    assert [address for address in loaded if "//" in address] == []


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
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    own = f"http://127.0.0.1:{server.server_port}/"
    faults = []
    with chromium() as browser:
        for name in PAGES:
            shown = browser.new_page(viewport={"width": 1280, "height": 900})
            shown.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
            shown.on("pageerror", lambda error: faults.append(str(error)))
            shown.on(
                "request",
                lambda r: faults.append(r.url) if not r.url.startswith((own, "data:")) else None,
            )
            shown.goto(own + page(name))
            codes = [each.code for each in document(name).blocks() if each.language == "mermaid"]
            shown.evaluate(
                "async all => { for (const each of all) await mermaid.parse(each) }", codes
            )
            # A diagram is drawn into an element that its page cannot look into.
            shown.wait_for_function(
                "n => document.querySelectorAll('div.mermaid').length === n", arg=len(codes)
            )
            heights = shown.eval_on_selector_all(
                "div.mermaid", "all => all.map(each => each.getBoundingClientRect().height)"
            )
            assert all(height > 30 for height in heights)
            # At most the tables are wider than the page, and they scroll by themselves.
            assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
            shown.close()
    server.shutdown()
    server.server_close()
    assert faults == []
