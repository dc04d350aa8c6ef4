import itertools
import re
from base64 import b64decode

import numpy as np
import pytest
from support.html_reader import Reader

from pipeline import compare
from pipeline.config import paths
from pipeline.data.dataset import Split
from pipeline.evaluation import results
from pipeline.reports import html, pairwise, tables
from pipeline.reports.pairwise import Candidate
from pipeline.robustness import measures

EXTRAS = {
    "statistics": {"train": {"classes": {str(d): 5400 + d for d in range(10)}}, "seed": 42},
    "samples": b"\x89PNG",
    "ood": b"\x89PNG",
}


def rendered(*runs, extras=EXTRAS):
    candidates = pairwise.of_runs(results.read(runs, "mnist"))
    tests = pairwise.compare_pairs([candidates])
    return html.models_page("run", [candidates], tests, "python -m pipeline.compare", extras)


def as_experiments(*runs):
    """The same models on the page of the experiments."""
    found = results.read(runs, "mnist")
    blank = np.zeros((200, 28, 28), np.uint8)
    test = Split(blank, found[1].labels, np.arange(200, dtype=np.int32))
    groups = pairwise.of_experiments(
        Candidate(f"run {run}", result, test=test) for run, result in found.items()
    )
    return html.models_page("experiment", groups, pairwise.compare_pairs(groups), "")


@pytest.fixture
def three(evaluated):
    evaluated(1, wrong=range(0, 40), val_accuracy=0.8, name="<baseline>")
    evaluated(2, wrong=range(0, 22, 2), val_accuracy=0.95)
    evaluated(3, wrong=range(0, 20, 2), val_accuracy=0.96)


@pytest.fixture(scope="module")
def drawn():
    """Pages of `three`, by the function that drew them and their runs."""
    return {}


@pytest.fixture(params=[rendered, as_experiments])
def page(request, three, drawn):
    """A page of some of `three`, which takes a second to draw and is drawn once."""

    def find(*runs):
        key = request.param, runs
        if key not in drawn:
            drawn[key] = request.param(*runs)
        return drawn[key]

    return find


@pytest.fixture
def of_runs(request, page):
    """Whether the page is that of the runs."""
    return request.node.callspec.params["page"] is rendered


def test_it_is_whole_without_a_network(page):
    content = page(1, 2, 3)
    assert "http://" not in content
    assert "https://" not in content
    reader = Reader(content)
    assert reader.open == []
    assert not reader.all("script")
    assert not reader.all("link")
    for image in reader.all("img"):
        assert image["src"].startswith("data:image/")
        assert len(image["alt"]) > 10
    assert len(content) < 3_000_000


def test_it_says_what_plots_show_to_those_who_do_not_see_them(page):
    reader = Reader(page(1, 2, 3))
    alts = [image["alt"] for image in reader.all("img")]
    assert any(" 95.00" in alt for alt in alts)
    assert sum("read as" in alt for alt in alts) == 24 + 11 + 10
    assert ("html", {"lang": "en"}) in reader.tags
    levels = [int(tag[1]) for tag, _ in reader.tags if tag in {"h1", "h2", "h3"}]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_every_model_has_its_section_and_every_link_a_goal(page, of_runs):
    reader = Reader(page(1, 2, 3))
    sections = [attributes["id"] for attributes in reader.all("section")]
    best_first = ["model-3", "model-2", "model-1"]
    of_models = [s for s in sections if s.startswith("model-")]
    assert of_models == (best_first if of_runs else best_first[::-1])
    assert {link["href"].removeprefix("#") for link in reader.all("a")} == set(sections)


def test_no_table_has_an_empty_head(page):
    for content in (page(1, 2, 3), page(1)):
        heads = Reader(content).heads
        assert len(heads) > 20
        assert all(head.strip() for head in heads)


SECTION = re.compile(
    r'<details class="run"( open)? style="--run: var\(--(run-\d)\)">\s*<summary>(.*?)</summary>'
    r'.*?base64,([^"]+)" alt="Reliability',
    re.DOTALL,
)


def test_runs_are_folded_under_their_heading_and_figure_but_the_best(page):
    opened, _, summaries, _ = zip(*SECTION.findall(page(1, 2, 3)), strict=True)
    assert opened == (" open", "", "")
    text = [" ".join(Reader(summary).text.split()) for summary in summaries]
    for line, (figure, misread) in zip(
        text, (("95.00 %", 10), ("94.50 %", 11), ("80.00 %", 40)), strict=True
    ):
        assert f": {figure} " in line
        assert f"{misread} of 200 misread" in line


def test_a_run_has_its_colour_on_every_page_and_in_its_plots(page):
    _, colours, _, diagrams = zip(*SECTION.findall(page(1, 2, 3)), strict=True)
    assert colours == ("run-3", "run-2", "run-1")
    drawings = [b64decode(diagram).decode() for diagram in diagrams]
    assert [set(re.findall(r"var\(--(run-\d)\)", drawing)) for drawing in drawings] == [
        {colour} for colour in colours
    ]


def test_the_headline_is_the_best_run_in_plain_words(three):
    text = " ".join(Reader(rendered(1, 2, 3)).text.split())
    assert "<baseline>" in text, "a name is text, not markup"
    assert "The best of 3 runs reads 95.00 % of the test digits right" in text
    assert "Run 3, made-up, misreads 10 of 200 images" in text
    assert "chosen from 3 runs for the best validation accuracy, 96.00 %" in text
    assert "did better" not in text


def test_corruptions_are_a_line_each_with_the_mean_last(three):
    (table,) = re.findall(r'<table class="kinds">.*?</table>', rendered(1, 2, 3), re.DOTALL)
    rows = re.findall(r"<tr><th[^>]*>([\w ,]+)</th>((?:<td>[\d.]+</td>){6})</tr>", table)
    assert [kind for kind, _ in rows] == [
        *(kind.replace("_", " ") for kind in measures.KINDS),
        *("mean", "calibration error, mean"),
    ]
    expected = ["51.0", "61.0", "52.0", "62.0", "53.0", "63.0"]
    assert re.findall(r"[\d.]+", rows[-2][1]) == expected


def test_runs_of_before_corruptions_were_measured_have_a_page(evaluated):
    for run in (1, 2):
        evaluated(run)
    (paths.evaluation(1) / "corruptions.json").unlink()
    assert re.findall(r'colspan="2">.*?</span>([^<]+)<', rendered(1, 2)) == ["run 2"]
    (paths.evaluation(2) / "corruptions.json").unlink()
    assert 'id="corruptions"' not in rendered(1, 2)


def test_it_admits_that_another_run_did_better_on_test(evaluated):
    evaluated(1, wrong=[1], val_accuracy=0.8)
    evaluated(2, wrong=[1, 2, 3], val_accuracy=0.9)
    text = " ".join(Reader(rendered(1, 2)).text.split())
    assert "Run 2, made-up, misreads" in text
    assert "although on them run 1 did better" in text


def test_one_run_alone_is_a_page(evaluated):
    evaluated(3)
    text = Reader(rendered(3, extras={})).text
    assert "no other run" in text
    assert "None: all test images are read right." in text


def test_without_a_report_on_the_data_the_page_does_without(three):
    assert "images by digit" in Reader(rendered(1, 2, 3)).text
    assert "54,045" in Reader(rendered(1, 2, 3)).text
    for extras in ({}, {"statistics": {"train": {"count": 3}}}):
        assert 'id="data"' not in rendered(1, 2, 3, extras=extras)


def test_both_pages_and_the_table_call_the_same_differences_real(evaluated):
    # 6 images worse than the best: p = 0.031 each, but 0.062 once corrected for two tests.
    evaluated(1, wrong=range(6), val_accuracy=0.95)
    evaluated(2, wrong=range(10, 16), val_accuracy=0.94)
    evaluated(3, val_accuracy=0.96)
    for best, page in (("run 3", rendered(1, 2, 3)), ("A", as_experiments(1, 2, 3))):
        text = Reader(page).text
        assert text.count(f"o significant difference between {best} and") == 2
        assert "reads better than" not in text
        assert text.count("0.06") == 4  # in the table and in the verdict
    found = results.read([1, 2, 3], "mnist")
    rows = tables.rows(compare.compare_runs(found, 3))
    assert [cells[-1] for cells in rows.values()] == ["0.06", "0.06", "best"]


def test_settings_that_differ_are_told_from_those_that_do_not():
    trees = {1: {"epochs": 5, "model": {"dense": 0}}, 2: {"epochs": 5, "model": {"dense": 128}}}
    assert html.settings(trees) == {
        True: {"model.dense": ["0", "128"]},
        False: {"epochs": ["5", "5"]},
    }
    assert html.settings({1: {"a": 1}, 2: {}})[True] == {"a": ["1", "\N{EN DASH}"]}


def test_the_commonest_confusions():
    confusion = np.diag(np.full(10, 90))
    confusion[4, 9], confusion[7, 2], confusion[3, 5], confusion[0, 6] = 5, 9, 1, 1
    assert html.confused(confusion.tolist()) == [(7, 2, 9), (4, 9, 5), (0, 6, 1)]
    assert html.confused(np.eye(10, dtype=int).tolist()) == []
