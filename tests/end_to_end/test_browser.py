"""The comparison page in a real browser."""

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.system("chromium", "chromium")]
WIDTHS = {"phone": 390, "desktop": 1280}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", WIDTHS)
def test_the_page_is_whole_on_every_device(rebuilt, browser, tmp_path, device, scheme):
    page = browser.new_page(viewport={"width": WIDTHS[device], "height": 900}, color_scheme=scheme)
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((rebuilt.folder / "reports" / "index.html").as_uri())

    assert complaints == []
    assert not [url for url in asked if url.startswith("http")]
    assert page.locator("h1").is_visible()
    assert "baseline" in page.inner_text("table >> nth=0")
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt)"
    assert page.evaluate(broken) == []
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wider) <= 0
    page.close()
