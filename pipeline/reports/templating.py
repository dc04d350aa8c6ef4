"""The templates that lie beside the code, and how they are filled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from pipeline.reports import tables


def fill(name: str, content: Mapping[str, Any], **filters: Callable[..., Any]) -> str:
    """The template `name` with `content`; HTML is escaped, a name without content is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"hundredths": tables.hundredths, "size": tables.size, **filters}
    return environment.get_template(name).render(content)
