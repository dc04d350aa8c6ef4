"""The likelihood of a digit: fitted, its threshold, what it leaves, what it refuses."""

import json

import numpy as np
import pytest
from matplotlib.colors import same_color

from pipeline import evaluate, likelihood
from pipeline.config import PipelineError, paths
from pipeline.ood import evaluation, examples
from pipeline.reports import theme
from pipeline.storage.files import sha256
from serve.models.predictor import Likelihood, Predictor


def test_the_threshold_is_what_all_but_one_in_a_hundred_reach():
    likelihoods = np.random.default_rng(1).random(5000).astype(np.float32)
    threshold = likelihood.threshold_of(likelihoods)
    assert (likelihoods < threshold).mean() == pytest.approx(0.01, abs=3e-4)


def test_what_is_rather_a_digit_is_never_below_the_threshold():
    assert likelihood.threshold_of(np.array([0.9, 0.95, 0.99], np.float32)) == 0.5


def test_what_it_leaves_tells_digits_from_what_is_none(built):
    """On scikit-learn's digits, of which there are few: far from MNIST's figures."""
    about = json.loads((paths.LIKELIHOOD / "likelihood.json").read_text())
    assert about["sha256"] == sha256(paths.LIKELIHOOD / "likelihood.tflite")
    assert (paths.LIKELIHOOD / "likelihood.tflite").stat().st_size < 800_000
    figures = json.loads((paths.evaluation(3) / "metrics.json").read_text())
    kinds = figures["likelihood"]["nondigits"]
    assert list(kinds) == list(examples.KINDS)
    assert figures["nondigit_auroc"] == min(kind["auroc"] for kind in kinds.values())
    assert figures["nondigit_auroc"] > 0.85
    assert figures["likelihood"]["refused_digits"]["test"] < 0.1
    assert json.loads(paths.METRICS.read_text())["nondigit_auroc"] == figures["nondigit_auroc"]


def test_the_champion_answers_with_it(built):
    champion = Predictor(paths.CHAMPION)
    served, _, fresh = evaluation.load("mnist")
    letters = fresh["letters"]
    np.testing.assert_array_equal(champion.likelihoods(letters), served(letters))
    assert champion.likelihood.threshold == served.threshold


def test_a_second_fit_is_the_same_to_the_byte(tensorflow, monkeypatch):
    """Within this process, where nothing else decides than the seed."""
    from pipeline.ood import score_network
    from pipeline.training import litert_export

    monkeypatch.setattr(score_network, "_STEPS", 4)
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (200, 28, 28), np.uint8)
    some = examples.Examples(images, random.integers(0, 11, 200).astype(np.uint8))
    contents = []
    for _ in range(2):
        tensorflow.keras.utils.set_random_seed(42)
        contents.append(litert_export.to_litert(score_network.fit(some)))
    one, two = (Likelihood(content, 0)(images) for content in contents)
    np.testing.assert_array_equal(one, two)


def test_what_is_missing_or_of_other_data_is_refused(trained, configured):
    about = paths.LIKELIHOOD / "likelihood.json"
    content = json.loads(about.read_text())
    for wrong in ({"data": "digits"}, {"sha256": "ab" * 32}):
        about.write_text(json.dumps(content | wrong))
        with pytest.raises(PipelineError, match=r"python -m pipeline.likelihood data=mnist"):
            evaluate.main(configured(3))
    paths.ood_examples("mnist").unlink()
    with pytest.raises(PipelineError, match=r"mnist.npz is missing"):
        evaluate.main(configured(3))


def test_figures_say_what_is_refused_of_each_kind(trained):
    """The test digits of `trained` are as bright as 0.09 of what `brightness` takes for certain."""
    served, about, fresh = evaluation.load("mnist")
    found = evaluation.scores(served, trained.test.images, fresh)
    threshold = float(found.test.min())  # is reached, by all of them
    figures = evaluation.metrics(found, about | {"threshold": threshold})["likelihood"]
    assert figures["refused_digits"] == dict.fromkeys(("test", *examples.DIGITS), 0)
    for kind, each in figures["nondigits"].items():
        assert each == {"auroc": 1, "refused": 1, "fitted": kind not in examples.UNSEEN}
    axes = evaluation.plot(found, threshold).axes
    rows = zip(("test digits", *found.kinds), axes[::2], axes[1::2], strict=True)
    for kind, left, right in rows:
        ood = kind in examples.KINDS
        assert left.get_title("left") == kind
        assert left.images
        assert sum(bar.get_height() for bar in right.patches) == pytest.approx(1)
        assert same_color(right.patches[0].get_facecolor(), theme.WRONG) == ood
        assert right.texts[0].get_text() == ("100.0% below" if ood else "0.0% below")
