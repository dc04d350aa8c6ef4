"""Where the docs lead."""

import itertools
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.documents import NAMES, ROOT, document, folders, tracked

# What is on the reader's own machine while it runs.
LOCAL = re.compile(r"http://(127\.0\.0\.1|localhost):\d+(/|$)")


def outside(link):
    return bool(urlsplit(link).scheme)


@pytest.mark.parametrize("name", NAMES)
def test_a_link_inside_leads_to_a_file_in_git_and_its_heading(name):
    wrong = []
    for link in filter(lambda link: not outside(link), document(name).links()):
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        place = str(Path(*target.resolve().relative_to(ROOT.resolve()).parts))
        if (place not in tracked() and place not in folders()) or (
            anchor and anchor not in set(document(place).anchors())
        ):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("name", NAMES)
def test_a_link_outside_is_a_whole_address(name):
    links = [link for link in document(name).links() if outside(link)]
    whole = re.compile(r"https://[\w.-]+\.[a-z]+(/\S*)?|mailto:\S+@\S+")
    assert [link for link in links if not whole.fullmatch(link) and not LOCAL.match(link)] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_link_has_no_bracket_left_over(name):
    """Of a link whose target has a space or whose definition is missing the brackets are shown."""
    shown = [
        child.content
        for token in document(name).tokens
        for child in token.children or ()
        if child.type == "text" and re.search(r"\]\(|\]\[", child.content)
    ]
    assert shown == []


@pytest.mark.parametrize("name", NAMES)
def test_a_document_has_one_title_and_skips_no_level(name):
    levels = [int(t.tag[1]) for t in document(name).tokens if t.type == "heading_open"]
    if not levels:
        return  # a note beside the files that it is about
    assert levels[0] == 1
    assert levels.count(1) == 1
    steps = itertools.pairwise(levels)
    assert all(later <= earlier + 1 for earlier, later in steps)
