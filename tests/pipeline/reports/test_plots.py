import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from support.candidates import CURVES, lettered

from pipeline.evaluation import metrics
from pipeline.reports import plots, theme


def confusion():
    matrix = np.diag(np.full(10, 1000))
    matrix[4, 9] = 12
    return plots.confusion_matrix(matrix, list("0123456789"), "digit")


def reliability():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.full(10, 0.05), 1000).astype(np.float32)
    labels = random.integers(0, 10, 1000).astype(np.uint8)
    return plots.reliability_diagram(metrics.reliability(probabilities, labels), 3)


def mistakes(count=11):
    images = np.full((count, 28, 28), 128, np.uint8)
    return plots.mistakes(images, [f"{n} → 0" for n in range(count)], "digit")


def curves():
    return plots.learning_curves(lettered(CURVES, CURVES), "accuracy", "loss")


def many_curves():
    return plots.learning_curves(lettered(*[CURVES] * 8), "loss")


def intervals():
    return plots.accuracy_intervals(lettered(*[CURVES] * 3))


ALL = pytest.mark.parametrize(
    "draw", [confusion, reliability, mistakes, curves, many_curves, intervals]
)


@ALL
def test_the_same_figures_give_the_same_bytes(draw, tmp_path):
    def written():
        targets = [tmp_path / "picture.png", tmp_path / "picture.svg"]
        theme.save(draw(), *targets)
        return [path.read_bytes() for path in targets]

    first = written()
    assert written() == first
    assert len(first[0]) < 150_000


@ALL
def test_drawings_follow_the_colour_scheme_and_stand_alone(draw):
    drawing = theme.svg(draw())
    ElementTree.fromstring(drawing)  # noqa: S314  our own
    assert "prefers-color-scheme:dark" in drawing
    for day, _ in theme.COLOURS.values():
        assert drawing.count(day) == 1, "outside the definition of the colours"
    assert "DejaVu" not in drawing
    assert not re.search(r"<dc:date>|url\((?!#)|@import|xlink:href=\"(?!#|data:)", drawing)


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_confusion_shows_each_number_but_zero():
    assert sorted(texts(confusion())) == sorted(["1000"] * 10 + ["12"])


def test_mistakes_carry_their_captions():
    assert texts(mistakes(3)) == ["0 → 0", "1 → 0", "2 → 0"]
    assert texts(mistakes(0)) == ["no mistakes"]


def test_a_candidate_has_its_colour_whichever_are_beside_it():
    everyone = lettered(*[CURVES] * 3)
    alone, among = (plots.accuracy_intervals(some) for some in (everyone[2:], everyone))
    assert alone.axes[0].lines[-1].get_color() == among.axes[0].lines[-1].get_color()


def test_drawing_leaves_the_settings_of_matplotlib_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    theme.svg(confusion())
    assert dict(matplotlib.rcParams) == before


def test_each_of_twelve_looks_different():
    assert len({tuple(theme.line_style(number).items()) for number in range(1, 13)}) == 12
    assert len({theme.css_colour(number) for number in range(1, 13)}) == 12


def test_training_is_drawn_only_for_few():
    def dashed(count):
        (axes,) = plots.learning_curves(lettered(*[CURVES] * count), "loss").axes
        return sum(line.get_linestyle() == "--" for line in axes.lines)

    assert dashed(3) == 3
    assert dashed(4) == 0


def test_one_epoch_and_a_perfect_score_can_be_drawn():
    perfect = {"step": [1], "val_accuracy": [1.0], "train_accuracy": [1.0]}
    theme.svg(plots.learning_curves(lettered(perfect, CURVES), "accuracy"))
    theme.svg(plots.learning_curves(lettered(perfect), "accuracy"))


def test_the_first_epochs_leave_the_others_room():
    steep = {
        "step": list(range(8)),
        "val_accuracy": [0.1] + [0.97] * 7,
        "train_accuracy": [0.1] + [0.96] * 7,
    }
    figure = plots.learning_curves(lettered(steep), "accuracy")
    assert 0.9 < figure.axes[0].get_ylim()[0] < 0.96


@pytest.mark.parametrize(
    ("classes", "preparation", "noun"),
    [
        (range(10), "digit", "digit"),
        (list("0123456789"), "digit", "digit"),
        (range(10), "fit", "class"),  # digits in colour, say: nothing of MNIST's holds for them
        (range(9), "digit", "class"),
        ("ab", "crop", "class"),
    ],
)
def test_a_class_is_a_digit_only_as_mnist_has_them(classes, preparation, noun):
    assert theme.noun(list(classes), preparation) == noun
