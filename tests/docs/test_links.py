"""Links and headings of the documents."""

import itertools
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.documents import NAMES, ROOT, document, folders, tracked


@pytest.mark.parametrize("name", NAMES)
def test_a_link_inside_leads_to_a_file_in_git_and_its_heading(name):
    wrong = []
    for link in document(name).links():
        if urlsplit(link).scheme:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        place = str(Path(*target.resolve().relative_to(ROOT.resolve()).parts))
        if (place not in tracked() and place not in folders()) or (
            anchor and anchor not in set(document(place).anchors())
        ):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("name", NAMES)
def test_no_link_is_shown_as_text(name):
    """The brackets of a link with a space in its target or without a definition are shown."""
    children = [child for token in document(name).tokens for child in token.children or ()]
    shown = [child.content for child in children if child.type == "text"]
    assert [text for text in shown if re.search(r"\]\(|\]\[", text)] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_document_has_one_title_and_skips_no_level(name):
    levels = [int(t.tag[1]) for t in document(name).tokens if t.type == "heading_open"]
    if levels:
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
