"""What `mkdocs` does beyond its own: files outside this folder, and Mermaid without a CDN."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# `make docs` brings it; without it the site has Mermaid's text in place of its drawings.
MERMAID = ROOT / "build" / "mermaid.min.js"
_LINK = re.compile(r"(?<=\]\()([^)\s:#]+)(?=(?:#[^)\s]*)?\))")
_DOCS = "docs/"
# Where the site has what is outside the folder of the docs.
_REST = "repository/"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the root, what pages link to outside this folder, and Mermaid."""
    pages = [path.name for path in ROOT.glob("*.md")]
    texts = {name: (ROOT / name).read_text() for name in pages}
    texts |= {f"{_DOCS}{path.name}": path.read_text() for path in ROOT.glob("docs/*.md")}
    linked = {_target(name, link) for name, text in texts.items() for link in _LINK.findall(text)}
    for name in sorted({*pages, *linked}):
        if not name.startswith(_DOCS) and (ROOT / name).is_file():
            files.append(_file(config, f"{_REST}{name}", ROOT / name))
    if MERMAID.exists():
        files.append(_file(config, MERMAID.name, MERMAID))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Leads the links to where the site has their files; those to folders to nowhere."""
    here = page.file.src_uri
    name = here.removeprefix(_REST) if here.startswith(_REST) else f"{_DOCS}{here}"

    def led(found: re.Match[str]) -> str:
        target = _target(name, found[1])
        if (ROOT / target).is_dir():
            return "#"
        inside = target.startswith(_DOCS)
        place = target.removeprefix(_DOCS) if inside else f"{_REST}{target}"
        return posixpath.relpath(place, posixpath.dirname(here))

    return _LINK.sub(led, markdown)


def _target(name: str, link: str) -> str:
    """What a link in the file `name` means, seen from the root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), link))


def _file(config: MkDocsConfig, place: str, path: Path) -> File:
    return File.generated(config, place, abs_src_path=str(path))
