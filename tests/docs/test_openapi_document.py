"""The committed OpenAPI document and Postman collection against the service."""

import json

import pytest
from support.bundles import PNG
from support.documents import ROOT

from docs.tools import openapi

DOCUMENT = json.loads((ROOT / "docs" / "openapi.json").read_bytes())
COLLECTION = json.loads((ROOT / "docs" / "postman.json").read_bytes())
REQUESTS = {item["name"]: item["request"] for item in COLLECTION["item"]}


def test_they_are_what_the_service_says():
    for path, text in openapi.files().items():
        assert path.read_text() == text, "make tables"


def test_the_collection_has_every_operation():
    operations = {
        (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods
    }
    requested = {
        (request["method"], request["url"]["raw"].removeprefix("{{baseUrl}}"))
        for request in REQUESTS.values()
    }
    assert requested == operations


def test_the_collection_is_of_the_format_2_1():
    assert COLLECTION["info"]["schema"].endswith("/v2.1.0/collection.json")
    for variable in [*COLLECTION["variable"], *COLLECTION["auth"]["apikey"]]:
        assert set(variable) == {"key", "value", "type"}
    for request in REQUESTS.values():
        assert "/".join(request["url"]["path"]) == request["url"]["raw"].partition("/")[2]
        assert all(header["key"] for header in request["header"])


@pytest.mark.parametrize("name", REQUESTS)
def test_the_service_answers_each_request_of_the_collection(client, name):
    request = REQUESTS[name]
    values = {variable["key"]: variable["value"] for variable in COLLECTION["variable"]}

    def filled(text):
        for key, value in values.items():
            text = text.replace(f"{{{{{key}}}}}", value)
        assert "{{" not in text
        return text

    headers = {h["key"]: h["value"] for h in request["header"] if not h.get("disabled")}
    body = request.get("body", {"mode": "none"})
    picture = (ROOT / "docs/images/seven.png").read_bytes()
    given = {
        "none": {},
        "raw": {"content": filled(body.get("raw", ""))},
        "file": {"content": picture},
        "formdata": {"files": {"file": ("a.png", picture, PNG["content-type"])}},
    }[body["mode"]]
    path = request["url"]["raw"].removeprefix("{{baseUrl}}")
    response = client.request(request["method"], path, headers=headers, **given)
    assert response.status_code == 200, response.text
