"""The promotion gates, each at its limit."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.config import CONF, PipelineError
from pipeline.data.dataset import Split
from pipeline.evaluation.significance import mcnemar
from pipeline.registry import gates
from pipeline.registry.gates import Gates
from serve.imaging.preparation import DIGITS, FIT, Preparation

LABELS = (np.arange(200) % 10).astype(np.uint8)
TEST = Split(np.zeros((200, 28, 28), np.uint8), LABELS, np.arange(200, dtype=np.int32))
EASY = Gates(
    test_accuracy=0.0,
    recall=0.0,
    field_accuracy=0.0,
    latency_ms_p99=9.0,
    bundle_bytes=1_001,
    mcnemar_p=0.05,
)
ALWAYS = {*vars(EASY)} - {"field_accuracy", "mcnemar_p"}  # field sets and champions may be missing


def predictor(*wrong, size=1_000):
    """Answers each test image right but those at `wrong`."""
    answers = LABELS.copy()
    answers[list(wrong)] = (answers[list(wrong)] + 1) % 10
    return SimpleNamespace(
        size=size,
        classes=list(range(10)),
        preparation=DIGITS,
        probabilities=lambda images: np.eye(10)[answers],
    )


def test_a_champion_of_other_pictures_or_classes_is_not_compared():
    larger, other = predictor(*range(6)), predictor(*range(6))
    larger.preparation, other.classes = Preparation(FIT, 48, 48, 1), list("abcdefghij")
    assert "mcnemar_p" in checks(predictor(), predictor())
    assert "mcnemar_p" not in checks(predictor(), larger)
    assert "mcnemar_p" not in checks(predictor(), other)


@pytest.fixture(autouse=True)
def _latency(monkeypatch):
    monkeypatch.setattr(gates.latency, "latency", lambda predict, images: (1.0, 8.0))


def checks(candidate, champion=None, **limits):
    found = gates.check(Gates(**(vars(EASY) | limits)), candidate, champion, TEST)
    return {check.gate: check for check in found}


def passed(*arguments, **limits):
    return {gate for gate, check in checks(*arguments, **limits).items() if check.passed}


def test_what_passes_all_gates_says_what_was_measured():
    found = checks(predictor(0, 1, 11, size=2_000_000), bundle_bytes=10_000_000)
    assert all(check.passed for check in found.values())
    assert [check.finding for check in found.values()] == [
        "test accuracy 0.9850, at least 0.0 wanted",
        "lowest recall 0.9000 (digit 1), at least 0.0 wanted",
        "p99 latency of one image 8.00 ms, below 9 wanted",
        "bundle 2.00 MB, below 10 wanted",
    ]


@pytest.mark.parametrize(
    ("gate", "lenient", "strict"),
    [
        ("test_accuracy", 0.985, 0.9851),
        ("recall", 0.9, 0.9001),
        ("latency_ms_p99", 8.01, 8.0),
        ("bundle_bytes", 1_001, 1_000),
    ],
)
def test_a_gate_has_its_limit(gate, lenient, strict):
    candidate = predictor(0, 1, 11)
    assert gate in passed(candidate, **{gate: lenient})
    assert passed(candidate, **{gate: strict}) == ALWAYS - {gate}


def test_all_field_sets_together_have_a_limit():
    limits = Gates(**vars(EASY) | {"field_accuracy": 0.95})
    found = gates.check_field(limits, right=1_254, pictures=1_320, sets=5)
    assert found == gates.Check(
        "field_accuracy",
        passed=True,
        finding="field accuracy 0.9500 on 1,320 pictures of 5 sets, at least 0.95 wanted",
    )
    assert not gates.check_field(limits, right=1_253, pictures=1_320, sets=5).passed


def test_a_significantly_worse_candidate_fails():
    candidate, champion = predictor(*range(6)), predictor()
    p = mcnemar(np.arange(200) >= 6, np.ones(200, bool)).p
    assert p < 0.05
    found = checks(candidate, champion)["mcnemar_p"]
    assert not found.passed
    assert found.finding == (
        "significantly worse than the present champion: 194 right, champion 200 "
        f"(McNemar p = {p:.3g})"
    )
    assert "mcnemar_p" in passed(candidate, champion, mcnemar_p=p)
    assert "mcnemar_p" not in passed(candidate, champion, mcnemar_p=p * 1.001)


def test_an_equal_or_better_candidate_passes():
    found = checks(predictor(), predictor(*range(6)))["mcnemar_p"]
    assert found.passed
    assert found.finding.startswith("not significantly worse")
    assert "mcnemar_p" in passed(predictor(0), predictor(1), mcnemar_p=2.0)


def test_field_sets_that_ask_nothing_are_refused(monkeypatch):
    wrong = gates.Defaults(gates.FieldSets("field", pictures=0), EASY)
    monkeypatch.setattr(gates.config_rules, "load", lambda *_: wrong)
    with pytest.raises(PipelineError, match=r"field_sets\.pictures"):
        gates.rules("mnist")


def test_the_rules_in_force_are_complete():
    rules = gates.rules("mnist")
    assert rules.model
    assert rules.field_sets
    assert all(limit > 0 for limit in vars(rules.gates).values())


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """A copy of `conf/` whose data set `few` is that of MNIST but for some lines."""
    copy = tmp_path / "conf"
    shutil.copytree(CONF, copy)
    monkeypatch.setattr(gates.config_rules, "CONF", copy)
    plain = (copy / "data/mnist.yaml").read_text()

    def write(**lines):
        text = plain + "".join(f"{key}: {value}\n" for key, value in lines.items())
        (copy / "data/few.yaml").write_text(text.replace("preparation: digit", "preparation: fit"))

    return write


def test_a_data_set_has_limits_of_its_own(conf):
    conf(gates="{test_accuracy: 0.8, bundle_bytes: 20000}")
    own, general = gates.rules("few"), gates.rules("mnist")
    assert own.gates == replace(general.gates, test_accuracy=0.8, bundle_bytes=20000)
    assert own.field_sets is None  # those are of digits


def test_a_gate_that_is_none_is_refused_by_name(conf):
    conf(gates="{test_acuracy: 0.8}")
    with pytest.raises(PipelineError, match="no gate test_acuracy; did you mean test_accuracy"):
        gates.rules("few")


def test_a_data_set_that_is_none_is_refused():
    with pytest.raises(PipelineError, match=r"conf/data/none\.yaml is missing"):
        gates.rules("none")
