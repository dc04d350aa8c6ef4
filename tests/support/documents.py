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
def sources():
    """What a name in the docs must come from: code, settings, manifests; not docs, not tests."""
    written = re.compile(
        r"(docs|tests|reports|requirements|monitoring/(prometheus|grafana/dashboards))/|.*\.(md|png|svg|ico|lock|baseline)$"
    )
    files = (ROOT / name for name in tracked() if not written.match(name))
    return {file.relative_to(ROOT): file.read_text(errors="replace") for file in files}


@cache
def words():
    """Every name that stands in the sources, but for those that ask for metrics by their names.

    Rules, dashboards and the autoscaler name metrics as the docs do: no proof that one is there.
    """
    asking = re.compile(r"monitoring/grafana/|deploy/kubernetes/.*(rule|autoscaler|adapter)")
    texts = (text for path, text in sources().items() if not asking.match(path.as_posix()))
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
        """Why it is not run, if so."""
        return (re.fullmatch(r"not run: (\S.*)", self.above) or [None, None])[1]


class Document:
    """A Markdown file by its name from the root."""

    def __init__(self, name):
        self.name = name
        self.text = (ROOT / name).read_text()
        self.lines = self.text.splitlines()
        self.tokens = MARKDOWN.parse(self.text)
        self._inline = [child for token in self.tokens for child in token.children or ()]

    def blocks(self):
        for token in self.tokens:
            if token.type in ("fence", "code_block"):
                before = self.lines[token.map[0] - 1].strip() if token.map[0] else ""
                above = re.fullmatch(r"<!-- (.*) -->", before)
                language = token.info.split()[0] if token.info.strip() else ""
                place = token.map[0] + 1
                yield Block(self.name, place, language, token.content, above[1] if above else "")

    def spans(self):
        """What is between backticks in the text."""
        return [child.content for child in self._inline if child.type == "code_inline"]

    def links(self):
        names = {"link_open": "href", "image": "src"}
        return [child.attrs[names[child.type]] for child in self._inline if child.type in names]

    def headings(self):
        for place, token in enumerate(self.tokens):
            if token.type == "heading_open":
                children = self.tokens[place + 1].children
                yield "".join(child.content for child in children)

    def anchors(self):
        """As GitHub makes them: of headings of one text the second ends in -1."""
        found = {}
        for heading in self.headings():
            slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
            found[slug] = found.get(slug, -1) + 1
            yield slug if not found[slug] else f"{slug}-{found[slug]}"

    def tables(self):
        """For each table its place and its rows of cells, the head first."""
        rows = None
        for place, token in enumerate(self.tokens):
            if token.type == "table_open":
                first, rows = token.map[0], []
            elif token.type == "tr_open":
                rows.append([])
            elif token.type in ("th_open", "td_open"):
                rows[-1].append(self.tokens[place + 1].content)
            elif token.type == "table_close":
                yield first, rows

    def under(self, heading):
        """The text from a heading of the second level to the next."""
        return self.text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


NAMES = [name for name in tracked() if name.endswith(".md")]


@cache
def document(name):
    return Document(name)


@cache
def documents():
    return [document(name) for name in NAMES]


def commands():
    """Everything that is typed or named as code: lines of shell blocks, and spans."""
    for each in documents():
        for block in each.blocks():
            if block.language == "sh":
                joined = block.code.replace("\\\n", " ")
                yield from ((each.name, line) for line in joined.splitlines())
        yield from ((each.name, " ".join(span.split())) for span in each.spans())
