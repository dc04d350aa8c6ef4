"""The API pages, /api/docs and /api/redoc, and the OpenAPI document that they draw."""

import re
from functools import reduce

import pytest
from playwright.sync_api import expect
from support.chromium import chromium


def references(value):
    """Every `$ref` in a JSON value."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from references(item)


def test_every_reference_of_the_openapi_document_resolves(client):
    document = client().get("/openapi.json").json()
    found = set(references(document))
    schemas = "#/components/schemas/"
    assert {f"{schemas}{name}" for name in ("PredictRequest", "InferRequest", "Tensor")} <= found
    for reference in found:
        assert reference.startswith(schemas)
        assert reduce(lambda part, key: part[key], reference[2:].split("/"), document)["type"]


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.mark.system("chromium", "chromium")
@pytest.mark.parametrize("path", ["/api/docs", "/api/redoc"])
def test_the_api_pages_draw_every_operation_without_an_error(service, browser, path):
    with service.client() as api:
        operations = api.get("/openapi.json").json()["paths"]
    complaints, page = [], browser.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.goto(f"{service.url}{path}")
    for operation in operations:
        drawn = page.get_by_text(re.compile(rf"(^|\s){re.escape(operation)}$")).first
        expect(drawn).to_be_attached(timeout=60_000)
    text = page.inner_text("body")
    assert not re.search("something went wrong|invalid reference|could not|fail", text, re.I)
    # Redoc's own logo is on another host, from which the content security policy loads nothing.
    assert [said for said in complaints if "cdn.redoc.ly/redoc/logo" not in said] == []


@pytest.mark.system("chromium", "chromium")
def test_every_example_of_swagger_is_answered_as_it_stands(service, browser):
    answers, page = [], browser.new_page(color_scheme="dark")
    page.goto(f"{service.url}/api/docs")
    expect(page.locator("html")).to_have_class("dark-mode")
    expect(page.locator(".opblock").first).to_be_attached(timeout=60_000)
    for each in page.locator(".opblock-post, .opblock:has-text('{version}')").all():
        each.locator(".opblock-summary-control").dispatch_event("click")
        each.get_by_role("button", name="Try it out").click()
        each.get_by_role("button", name="Execute").click()
        status = each.locator(".live-responses-table .response-col_status")
        answers.append(status.last.inner_text().split()[0])
    assert answers == ["200"] * 8
