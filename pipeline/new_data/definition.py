"""The definition of a data set as the text of `conf/data/<name>.yaml`."""

import json
import re
from collections.abc import Mapping, Sequence

from pipeline.config.data_schema import Data

WIDTH = 100

# Words that YAML takes for something else than text.
_RESERVED = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def text(data: Data, title: str, note: str | None, gates: Mapping[str, float]) -> str:
    """Return the file. `note`: a comment on `group`, if there is one."""
    folder, split = data.folder, data.split
    assert folder
    group = _quoted(split.group) if split.group else "null"
    lines = [
        *(f"# {line}" for line in title.splitlines()),
        f"name: {data.name}",
        f"format: {data.format.value}",
        *_listed("classes", data.classes),
        f"input: {{height: {data.input.height}, width: {data.input.width}, "
        f"channels: {data.input.channels}}}",
        _noted(
            f"preparation: {data.preparation.value}",
            "fit, crop or digit: serve/imaging/preparation.py",
        ),
        _noted(f"registered_model: {data.registered_model}", "in MLflow; null to register none"),
        "",
        "# Where in the archive the folders of the classes are.",
        "folder:",
        f"  path: {_text(folder.path)}",
        *([f"  index: {_text(folder.index)}"] if folder.index else []),
        *_mapped("names", folder.names),
        "",
        "# SHA-256 of each file.",
        "files:",
        *(f"  {_text(name)}: {digest}" for name, digest in data.files.items()),
        "",
        "# Tried in this order. A path is relative to the repository's root.",
        "mirrors:",
        *(f"  - {_text(place)}" for place in data.mirrors),
        "",
        "# Pictures held out of training. Those of a group are in one split.",
        "split:",
        f"  validation: {split.validation}",
        f"  test: {split.test}",
        _noted(f"  group: {group}", note),
        "",
        "# Random changes of training images, off by null: the share that is mirrored, the largest",
        "# change of brightness, contrast and saturation. For pictures that stay of their class.",
        "# `repeat`: how often an epoch shows each picture, changed anew each time.",
        f"augmentation: {{flip: null, colour: null, repeat: {data.augmentation.repeat}}}",
        "",
        "# What a model must reach to be registered, in place of conf/register.yaml. Raise it.",
        "gates:",
        *(f"  {name}: {limit}" for name, limit in gates.items()),
        "",
        "feedback: null",
    ]
    return "\n".join(lines) + "\n"


def _noted(line: str, note: str | None) -> str:
    return f"{line:<26}  # {note}" if note else line


def _text(value: str) -> str:
    """Return the value as YAML reads it as text."""
    plain = re.fullmatch(r"[A-Za-z./][\w./-]*( [\w./-]+)*", value)
    return (
        value if plain and value.lower() not in _RESERVED else json.dumps(value, ensure_ascii=False)
    )


def _quoted(pattern: str) -> str:
    return "'" + pattern.replace("'", "''") + "'"


def _listed(key: str, values: Sequence[str]) -> list[str]:
    """Return a list in brackets, in as many lines as it takes."""
    lines, line = [], f"{key}: ["
    for place, value in enumerate(values):
        item = _text(value) + ("]" if place == len(values) - 1 else ", ")
        if len(line) + len(item.rstrip()) > WIDTH:
            lines.append(line.rstrip())
            line = " " * (len(key) + 3)
        line += item
    return [*lines, line]


def _mapped(key: str, values: Mapping[str, str]) -> list[str]:
    if not values:
        return []
    return [f"  {key}:", *(f"    {_text(label)}: {_text(name)}" for label, name in values.items())]
