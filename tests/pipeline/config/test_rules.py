from dataclasses import dataclass

import pytest
from omegaconf import MISSING

from pipeline.config import PipelineError, rules


@dataclass
class Limits:
    share: float = MISSING
    images: int = MISSING


@pytest.fixture
def conf(tmp_path, monkeypatch):
    monkeypatch.setattr(rules, "CONF", tmp_path)
    return tmp_path


def test_rules_are_typed(conf):
    (conf / "limits.yaml").write_text("share: 1\nimages: 3\n")
    assert rules.load("limits.yaml", Limits) == Limits(share=1.0, images=3)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("share: 1\nimages: 3\nimagse: 3\n", r"conf/limits\.yaml: .*imagse"),
        ("share: much\nimages: 3\n", r"conf/limits\.yaml: .*much"),
        ("share: 1\n", r"no value for images in conf/limits\.yaml"),
    ],
    ids=["unknown key", "wrong type", "missing key"],
)
def test_a_wrong_key_or_type_is_refused_by_name(conf, text, named):
    (conf / "limits.yaml").write_text(text)
    with pytest.raises(PipelineError, match=named):
        rules.load("limits.yaml", Limits)
