"""A Postman collection, format 2.1, of an OpenAPI document."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serve.decoding.normalise_file import normalise_file

PICTURE = Path(__file__).parent / "images" / "seven.png"
SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"

Json = dict[str, Any]

# What no schema can give: a picture of a digit. Other programs know these as variables.
_FILE = "docs/images/seven.png"
_SAMPLES = {"image": "{{image}}", "images": ["{{image}}"], "data": "{{pixels}}"}


def collection(document: Json) -> Json:
    """A request for each operation and kind of body that it takes.

    The collection's variables are the address, the key, a picture, and it as pixels.
    """
    picture = PICTURE.read_bytes()
    schemas = document["components"]["schemas"]
    variables = {
        "baseUrl": "http://127.0.0.1:8000",
        "apiKey": "",
        "image": f"data:image/png;base64,{base64.b64encode(picture).decode()}",
        "pixels": json.dumps(normalise_file(picture, max_pixels=10**6).ravel().tolist()),
    }
    return {
        "info": {
            "name": document["info"]["title"],
            "description": document["info"]["description"],
            "version": document["info"]["version"],
            "schema": SCHEMA,
        },
        "auth": {
            "type": "apikey",
            "apikey": [
                {"key": "key", "value": "X-API-Key", "type": "string"},
                {"key": "value", "value": "{{apiKey}}", "type": "string"},
                {"key": "in", "value": "header", "type": "string"},
            ],
        },
        "variable": [
            {"key": key, "value": value, "type": "string"} for key, value in variables.items()
        ],
        "item": [
            item
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
            for item in _items(path, method.upper(), operation, schemas)
        ],
    }


def _items(path: str, method: str, operation: Json, schemas: Json) -> Iterator[Json]:
    contents = operation.get("requestBody", {}).get("content", {})
    if not contents:
        yield _item(f"{method} {path}", path, method, operation, [], None)
    for kind, content in contents.items():
        # Postman writes the boundary of a form into its header itself.
        header = [] if kind.startswith("multipart/") else [{"key": "Content-Type", "value": kind}]
        name = f"{method} {path}" + (f" ({kind})" if len(contents) > 1 else "")
        yield _item(name, path, method, operation, header, _body(kind, content["schema"], schemas))


def _item(
    name: str, path: str, method: str, operation: Json, header: list[Json], body: Json | None
) -> Json:
    parameters = [_parameter(each) for each in operation.get("parameters", [])]
    query = [made for place, made in parameters if place == "query"]
    header = [*header, *(made for place, made in parameters if place == "header")]
    raw = "{{baseUrl}}" + path
    url: Json = {"raw": raw, "host": ["{{baseUrl}}"], "path": path.strip("/").split("/")}
    request: Json = {
        "method": method,
        "header": header,
        "url": url | ({"query": query} if query else {}),
        "description": operation["description"],
    }
    return {"name": name, "request": request | ({"body": body} if body else {}), "response": []}


def _parameter(parameter: Json) -> tuple[str, Json]:
    """Where it goes, and the parameter, switched off."""
    value = str(parameter["schema"].get("default", "")).lower()
    made = {"key": parameter["name"], "value": value, "disabled": True}
    return parameter["in"], made | {"description": parameter.get("description", "")}


def _body(kind: str, schema: Json, schemas: Json) -> Json:
    if kind == "application/json":
        text = json.dumps(example(schema, schemas), indent=2)
        text = text.replace('"{{pixels}}"', "{{pixels}}")
        return {"mode": "raw", "raw": text, "options": {"raw": {"language": "json"}}}
    if kind.startswith("multipart/"):
        fields = [{"key": name, "type": "file", "src": _FILE} for name in schema["properties"]]
        return {"mode": "formdata", "formdata": fields}
    return {"mode": "file", "file": {"src": _FILE}}


def example(schema: Json, definitions: Json) -> Any:  # noqa: ANN401  JSON
    """A value that the schema itself gives as an example, or the plainest of its type."""
    if "$ref" in schema:
        return example(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "examples" in schema:
        return schema["examples"][0]
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        sent = {*schema["required"], *_SAMPLES}
        return {
            name: _SAMPLES.get(name) or example(found, definitions)
            for name, found in schema["properties"].items()
            if name in sent
        }
    if schema.get("type") == "array":
        return [example(schema["items"], definitions)]
    return {"string": "", "integer": int(schema.get("minimum", 0))}[schema["type"]]
