import re
import shutil
from base64 import b64encode

import pytest
from support.chromium import chromium
from support.experiments_repo import splits
from support.html_reader import Reader

from pipeline import compare_experiments
from pipeline.compare_experiments import PAGE
from pipeline.config import PipelineError
from pipeline.reports import html, pairwise


@pytest.fixture
def three(laboratory):
    laboratory.experiment("best", run=3, val_accuracy=0.99, wrong=[7], settings={"epochs": 9})
    laboratory.experiment("close", run=3, val_accuracy=0.98, wrong=[7, 21])
    laboratory.experiment("far", val_accuracy=0.8, wrong=range(10, 40))
    return laboratory


@pytest.fixture
def compared(capsys, caplog):
    """Runs the command; the page, its text in one line, and what was printed and logged."""

    def run(*arguments):
        capsys.readouterr()
        caplog.clear()
        with caplog.at_level("INFO", "pipeline.compare_experiments"):
            compare_experiments.main(list(arguments))
        reader = Reader(PAGE.read_text())
        said = capsys.readouterr().out + "\n".join(caplog.messages)
        return reader, " ".join(reader.text.split()), said

    return run


def test_without_names_it_is_all_of_head_the_best_first(three, compared):
    reader, text, said = compared()
    assert "The best of 3 experiments reads 99.50 % of the test digits right" in text
    assert "A, best, misreads 1 of 200 images" in text
    rows = [line.split()[:2] for line in said.splitlines()[1:4]]
    assert rows == [["A", "best"], ["B", "close"], ["C", "far"]]
    assert said.rstrip().endswith(str(PAGE))
    assert reader.open == []


def test_verdicts_are_on_the_page_and_in_the_terminal(three, compared):
    _, text, said = compared()
    for told in (text, said):
        assert "No significant difference between A and B" in told
        assert (
            "A misreads 0 images that B reads right, B misreads 1 image that A reads right" in told
        )
        assert "A reads better than C" in told
    assert "each p is corrected for their number (Holm)" in text


def test_settings_that_differ_stand_apart_from_those_that_all_share(three, compared):
    _, text, _ = compared()
    differ = text[text.index("Settings that differ") : text.index("settings that all experiments")]
    assert "run331 model.filters969632 epochs922" in differ
    assert "learning_rate" not in differ


def test_images_that_only_one_reads_right_say_what_each_said(three, compared):
    reader, text, _ = compared()
    alts = [image["alt"] for image in reader.all("img") if "predicts" in image["alt"]]
    assert len(alts) == 1 + 1 + 10
    assert "A 1; A predicts 1, confidence 71 %; B predicts 2, confidence 71 %" in alts
    assert "Only A is right: 30 images, the first 10" in text
    assert "Only C is right: 1 image" in text
    pixels = b64encode(html.image_png(splits(0).test.images[21], inverted=True)).decode()
    assert pixels in PAGE.read_text()


def test_names_are_taken_as_typed_each_once(three, compared):
    _, text, _ = compared("far", "best", "far")
    assert "The best of 2 experiments" in text
    assert "python -m pipeline.compare_experiments far best far" in text
    assert "close" not in text


def test_one_alone_is_a_page_without_a_comparison(three, compared):
    _, text, _ = compared("close")
    assert "This experiment reads" in text
    assert "Nothing to compare: one experiment alone." in text


def test_other_test_images_are_not_compared(laboratory, compared):
    laboratory.experiment("here", val_accuracy=0.9, wrong=[1])
    laboratory.experiment("there", val_accuracy=0.95, wrong=range(50), split=1)
    laboratory.experiment("elsewhere", val_accuracy=0.8, data="digits", split=2)
    _, text, said = compared()
    assert "3 experiments on 3 sets of test images" in text
    assert "mnist, seed 42; " in text
    assert "mnist, seed 43; " in text
    assert "no two experiments were tested on the same images" in text
    assert "reads better" not in text + said
    assert re.search(r"A there +mnist, seed 43 ", said)
    assert re.search(r"C elsewhere +digits ", said)


def test_other_validation_images_make_the_order_a_rough_one(laboratory, compared):
    laboratory.experiment("one", wrong=range(20))
    laboratory.experiment("two", val_accuracy=0.8, validated=1)
    _, text, _ = compared()
    assert "mnist: the validation images are not the same in all experiments" in text
    assert "B reads better than A, although worse on validation images" in text


def test_of_too_many_the_best_are_compared(three, compared, monkeypatch):
    monkeypatch.setattr(pairwise, "MAX_CANDIDATES", 2)
    _, text, said = compared()
    assert "Only the best 2 of 3 experiments are compared." in said
    assert "B close" in text
    assert " far " not in said


def test_without_experiments_it_says_how_to_make_some(laboratory):
    with pytest.raises(PipelineError, match=r"no experiments yet: python train\.py -m run=1,2,3"):
        compare_experiments.main([])


def test_what_is_not_in_the_cache_is_left_out_unless_it_was_named(three, compared):
    kept = three.folder / "kept"
    shutil.move(three.folder / ".dvc" / "cache", kept)
    three.experiment("new", val_accuracy=0.7)
    _, text, said = compared()
    assert "left out: best: models/runs/3/model.json is not in DVC's cache" in said
    assert "This experiment reads" in text
    before = PAGE.read_bytes()
    with pytest.raises(PipelineError, match=r"best: models/runs/3/model\.json is not in DVC's"):
        compare_experiments.main(["new", "best"])
    assert PAGE.read_bytes() == before
    shutil.rmtree(three.folder / ".dvc" / "cache")
    with pytest.raises(PipelineError, match="none of this commit's experiments can be read"):
        compare_experiments.main([])


def test_the_workspace_stays_as_it_is(three, compared):
    compared()
    assert three.git("status", "--porcelain", "-uall") == "?? reports/experiments.html"


@pytest.mark.system("chromium", "chromium")
def test_the_page_is_whole_on_a_phone(three, compared):
    name = "run1-a-very-long-name-" + "x" * 40
    three.experiment(name, val_accuracy=0.7, split=1, wrong=range(9))
    compared()
    with chromium() as browser:
        shown = browser.new_page(viewport={"width": 390, "height": 900}, java_script_enabled=False)
        asked = []
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(PAGE.resolve().as_uri())
        assert not [url for url in asked if url.startswith("http")]
        assert shown.locator("h1").is_visible()
        assert name in shown.inner_text("table >> nth=0")
        broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).length"
        assert shown.evaluate(broken) == 0
        assert shown.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
