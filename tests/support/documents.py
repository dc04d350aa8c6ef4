"""The Markdown files of the repository as their tests read them."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt

from support.clones import ROOT, tracked

MARKDOWN = MarkdownIt("commonmark").enable("table")


@cache
def folders():
    return {str(parent) for name in tracked() for parent in Path(name).parents} - {"."}


@cache
def words():
    """Return every word of the code, the settings and the manifests.

    Rules, dashboards and the autoscaler are left out: they name metrics as the documents do, which
    does not show that a metric exists.
    """
    left_out = re.compile(
        r"(docs|tests|reports|requirements|monitoring/(prometheus|grafana))/"
        r"|deploy/kubernetes/.*(rule|autoscaler|adapter)"
        r"|.*\.(md|png|svg|ico|lock|baseline)$"
    )
    files = (ROOT / name for name in tracked() if not left_out.match(name))
    texts = (file.read_text(errors="replace") for file in files)
    return {word for text in texts for word in re.findall(r"\w+", text)}


@dataclass(frozen=True)
class Block:
    """Code between fences; `above` is the comment on the line before it."""

    document: str
    line: int
    language: str
    code: str
    above: str

    @property
    def unrun(self):
        """Return the reason why it is not run, None if it is."""
        return (re.fullmatch(r"not run: (\S.*)", self.above) or [None, None])[1]


class Document:
    """A Markdown file by its name from the root."""

    def __init__(self, name):
        self.name = name
        self.text = (ROOT / name).read_text()
        self.tokens = MARKDOWN.parse(self.text)
        self._inline = [child for token in self.tokens for child in token.children or ()]

    def blocks(self):
        lines = self.text.splitlines()
        for token in self.tokens:
            if token.type in ("fence", "code_block"):
                before = lines[token.map[0] - 1].strip() if token.map[0] else ""
                above = re.fullmatch(r"<!-- (.*) -->", before)
                language = token.info.split()[0] if token.info.strip() else ""
                place = token.map[0] + 1
                yield Block(self.name, place, language, token.content, above[1] if above else "")

    def spans(self):
        """Return the texts between backticks."""
        return [
            " ".join(each.content.split()) for each in self._inline if each.type == "code_inline"
        ]

    def links(self):
        names = {"link_open": "href", "image": "src"}
        return [child.attrs[names[child.type]] for child in self._inline if child.type in names]

    def anchors(self):
        """Yield the headings' anchors as GitHub makes them: the second of one text ends in -1."""
        found = {}
        for token, content in zip(self.tokens, self.tokens[1:], strict=False):
            if token.type == "heading_open":
                heading = "".join(child.content for child in content.children)
                slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
                found[slug] = found.get(slug, -1) + 1
                yield slug if not found[slug] else f"{slug}-{found[slug]}"

    def typed(self):
        """Yield the lines of shell blocks and the spans: whatever is typed or named as code."""
        for block in self.blocks():
            if block.language == "sh":
                yield from block.code.replace("\\\n", " ").splitlines()
        yield from self.spans()


NAMES = [name for name in tracked() if name.endswith(".md")]


@cache
def document(name):
    return Document(name)


@cache
def documents():
    return [document(name) for name in NAMES]
