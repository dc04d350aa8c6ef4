import pytest

from pipeline.config import PipelineError
from pipeline.storage.files import replace_value


def test_a_value_is_replaced_and_nothing_else(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("data: a  # mine\n  data: b\nseed: 1\n")
    assert replace_value(file, "data: ", "c")
    assert file.read_text() == "data: c  # mine\n  data: b\nseed: 1\n"
    assert not replace_value(file, "data: ", "c")


@pytest.mark.parametrize("text", ["seed: 1\n", "data: a\ndata: b\n"])
def test_a_file_without_one_such_line_is_refused(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(PipelineError, match="one line `data:"):
        replace_value(tmp_path / "params.yaml", "data: ", "c")
    assert (tmp_path / "params.yaml").read_text() == text
