"""Hooks of `mkdocs`: the README as first page, files outside docs/, Mermaid without a CDN."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
# `make docs` downloads it; without it the site shows the text of the diagrams.
MERMAID = ROOT / "build" / "mermaid.min.js"
_LINK = re.compile(r"(?<=\]\()([^)\s:#]+)(?=(?:#[^)\s]*)?\))")
# Files by their path in the repository whose place in the site is another one.
_PLACES = {"README.md": "index.md", "docs/README.md": "documents.md"}


def place(name: str) -> str:
    """Return where the site has a file of the repository."""
    if name in _PLACES:
        return _PLACES[name]
    return name.removeprefix("docs/") if name.startswith("docs/") else f"repository/{name}"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root, the files outside docs/ that pages link to, and Mermaid."""
    pages = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
    names = {path.relative_to(ROOT).as_posix(): path.read_text() for path in pages}
    linked = {_target(name, link) for name, text in names.items() for link in _LINK.findall(text)}
    for found in [file for file in files if file.src_uri == "README.md"]:
        files.remove(found)
    for name in sorted({*names, *linked}):
        outside = not name.startswith("docs/") or name in _PLACES
        if outside and (ROOT / name).is_file():
            files.append(File.generated(config, place(name), abs_src_path=str(ROOT / name)))
    if MERMAID.exists():
        files.append(File.generated(config, MERMAID.name, abs_src_path=str(MERMAID)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Point links at the site's place of their files; the site has no folders to link to."""
    here = page.file.src_uri
    sources = {there: name for name, there in _PLACES.items()}
    name = sources.get(here) or (
        here.removeprefix("repository/") if here.startswith("repository/") else f"docs/{here}"
    )

    def moved(found: re.Match[str]) -> str:
        target = _target(name, found[1])
        if (ROOT / target).is_dir():
            return "#"
        return posixpath.relpath(place(target), posixpath.dirname(here))

    return _LINK.sub(moved, markdown)


def _target(name: str, link: str) -> str:
    """Return the path from the root of what a link in the file `name` leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), link))
