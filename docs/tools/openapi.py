"""The service's OpenAPI document and a Postman collection (format 2.1) of it, as in docs/."""

from __future__ import annotations

import base64
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.tools.tables import ROOT
from serve.app import create_app
from serve.decoding.decode import normalise_file
from serve.settings import Settings

SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"

Json = dict[str, Any]

# A picture of a digit, which no schema can give; the collection has it as variables.
_FILE = "docs/images/seven.png"
_SAMPLES = {"image": "{{image}}", "images": ["{{image}}"], "data": "{{pixels}}"}


def files() -> dict[Path, str]:
    """Return the committed files with their content."""
    described = document()
    contents = {"openapi.json": described, "postman.json": collection(described)}
    return {
        ROOT / "docs" / name: json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        for name, content in contents.items()
    }


def document() -> Json:
    """Return the answer of `/openapi.json`, with the project's version."""
    found = create_app(Settings.model_construct()).openapi()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {**found, "info": {**found["info"], "version": project["version"]}}


def collection(document: Json) -> Json:
    """Return a request for each operation and each content type of its body.

    The collection's variables are the address, the key, a picture, and its 784 pixels.
    """
    picture = (ROOT / _FILE).read_bytes()
    variables = {
        "baseUrl": "http://127.0.0.1:8000",
        "apiKey": "",
        "image": f"data:image/png;base64,{base64.b64encode(picture).decode()}",
        "pixels": json.dumps(normalise_file(picture, max_pixels=10**6).ravel().tolist()),
    }
    key = {"key": "X-API-Key", "value": "{{apiKey}}", "in": "header"}
    info = dict(document["info"])
    schemas = document["components"]["schemas"]
    return {
        "info": {"name": info.pop("title"), **info, "schema": SCHEMA},
        "auth": {"type": "apikey", "apikey": _strings(key)},
        "variable": _strings(variables),
        "item": [
            item
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
            for item in _items(path, method.upper(), operation, schemas)
        ],
    }


def _strings(values: dict[str, str]) -> list[Json]:
    return [{"key": key, "value": value, "type": "string"} for key, value in values.items()]


def _items(path: str, method: str, operation: Json, schemas: Json) -> Iterator[Json]:
    contents = operation.get("requestBody", {}).get("content", {})
    for kind, content in (contents or {"": {}}).items():
        # Postman itself writes the boundary of a form into this header.
        sent = kind and not kind.startswith("multipart/")
        optional: dict[str, list[Json]] = {"query": [], "header": []}
        optional["header"] += [{"key": "Content-Type", "value": kind}] if sent else []
        for each in operation.get("parameters", []):
            value = str(each["schema"].get("default", "")).lower()
            described = {"disabled": True, "description": each.get("description", "")}
            optional[each["in"]].append({"key": each["name"], "value": value, **described})
        url: Json = {"raw": "{{baseUrl}}" + path, "host": ["{{baseUrl}}"]}
        url |= {"path": path.strip("/").split("/")}
        request = {
            "method": method,
            "header": optional["header"],
            "url": url | ({"query": optional["query"]} if optional["query"] else {}),
            "description": operation["description"],
        }
        if kind:
            request["body"] = _body(kind, content["schema"], schemas)
        name = f"{method} {path}" + (f" ({kind})" if len(contents) > 1 else "")
        yield {"name": name, "request": request, "response": []}


def _body(kind: str, schema: Json, schemas: Json) -> Json:
    schema = _resolved(schema, schemas)
    if kind == "application/json":
        text = json.dumps(example(schema, schemas), indent=2)
        text = text.replace('"{{pixels}}"', "{{pixels}}")
        return {"mode": "raw", "raw": text, "options": {"raw": {"language": "json"}}}
    if kind.startswith("multipart/"):
        fields = [{"key": name, "type": "file", "src": _FILE} for name in schema["properties"]]
        return {"mode": "formdata", "formdata": fields}
    return {"mode": "file", "file": {"src": _FILE}}


def _resolved(schema: Json, schemas: Json) -> Json:
    return schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def example(schema: Json, schemas: Json) -> Any:  # noqa: ANN401  JSON
    """Return the schema's own example, or the simplest value of its type."""
    schema = _resolved(schema, schemas)
    if "examples" in schema:
        return schema["examples"][0]
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        sent = {*schema["required"], *_SAMPLES}
        return {
            name: _SAMPLES.get(name) or example(found, schemas)
            for name, found in schema["properties"].items()
            if name in sent
        }
    if schema.get("type") == "array":
        return [example(schema["items"], schemas)]
    return {"string": "", "integer": int(schema.get("minimum", 0))}[schema["type"]]
