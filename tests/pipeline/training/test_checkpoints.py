import numpy as np
import pytest

from pipeline.config import PipelineError


@pytest.fixture(scope="module")
def checkpoints(tensorflow):
    from pipeline.training import checkpoints

    return checkpoints


def network(tensorflow, value):
    keras = tensorflow.keras
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.set_weights([np.array([[value]]), np.zeros(1)])
    return model


def value(model):
    return float(model.get_weights()[0][0, 0])


def test_the_last_epoch_and_the_best_one_come_back(checkpoints, tensorflow, tmp_path):
    history = []
    for epoch, best in enumerate((1, 2, 2, 2), 1):
        history = [*history, {"val_loss": float(epoch)}]
        checkpoints.save(tmp_path, network(tensorflow, epoch), history, best)
    model = network(tensorflow, 0.0)
    assert checkpoints.restore(tmp_path, model) == history
    assert value(model) == 4
    checkpoints.restore_best(tmp_path, model, 2)
    assert value(model) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "epoch-2.weights.h5",
        "epoch-4.weights.h5",
        "history.json",
    ]


def test_a_save_that_is_cut_off_leaves_the_epoch_before(
    checkpoints, tensorflow, tmp_path, monkeypatch
):
    first = [{"val_loss": 1.0}]
    checkpoints.save(tmp_path, network(tensorflow, 1.0), first, 1)

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "write_json", crash)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(tmp_path, network(tensorflow, 2.0), [*first, {"val_loss": 0.5}], 2)
    model = network(tensorflow, 0.0)
    assert checkpoints.restore(tmp_path, model) == first
    assert value(model) == 1


def test_nothing_saved_is_nothing_restored(checkpoints, tensorflow, tmp_path):
    model = network(tensorflow, 3.0)
    assert checkpoints.restore(tmp_path / "none", model) == []
    assert value(model) == 3


def test_other_settings_or_other_code_have_another_folder(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    code = tmp_path / "code.py"
    code.write_text("a = 1")
    first = checkpoints.folder({"epochs": 1}, [code])
    assert first.parent == tmp_path / ".checkpoints"
    assert checkpoints.folder({"epochs": 1}, [code]) == first
    assert checkpoints.folder({"epochs": 2}, [code]) != first
    code.write_text("a = 2")
    assert checkpoints.folder({"epochs": 1}, [code]) != first


def test_a_checkpoint_that_cannot_be_read_is_named_with_the_way_out(
    checkpoints, tensorflow, tmp_path
):
    checkpoints.save(tmp_path, network(tensorflow, 1.0), [{"val_loss": 1.0}], 1)
    (tmp_path / "epoch-1.weights.h5").unlink()
    with pytest.raises(PipelineError, match="rm -r"):
        checkpoints.restore(tmp_path, network(tensorflow, 0.0))


def test_discarding_leaves_nothing_that_looks_like_a_checkpoint(
    checkpoints, tensorflow, tmp_path, monkeypatch
):
    checkpoints.save(tmp_path, network(tensorflow, 1.0), [{"val_loss": 1.0}], 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.shutil, "rmtree", lambda *_, **__: None)  # killed before it
        checkpoints.discard(tmp_path)
    model = network(tensorflow, 3.0)
    assert checkpoints.restore(tmp_path, model) == []
    checkpoints.discard(tmp_path)
    assert not tmp_path.exists()
