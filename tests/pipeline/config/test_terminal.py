import pytest

from pipeline import config
from pipeline.config.terminal import Bar


@pytest.mark.parametrize(("terminal", "drawn"), [("1", True), ("0", False)])
def test_a_bar_is_for_a_terminal(monkeypatch, capsys, terminal, drawn):
    monkeypatch.setenv("TTY_COMPATIBLE", terminal)
    with Bar("pictures", 2) as bar:
        bar.step()
        bar.refresh()
    assert ("1/2" in capsys.readouterr().out) == drawn


@pytest.mark.parametrize(
    ("stage", "place"),
    [("likelihood", "stage 3 of 11"), ("evaluate@1", "stage 7 of 11"), ("other", ""), ("", "")],
)
def test_a_stage_knows_its_place_in_the_pipeline(stage, place):
    assert config._place(stage, [1, 2, 3]) == place
