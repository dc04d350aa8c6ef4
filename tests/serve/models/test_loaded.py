"""The models that a worker has loaded, and how it follows the pointer of the bundle cache."""

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest
from support.bundles import SOURCE, bring

from serve.models import drift_reference, loaded
from serve.models.loaded import LoadedModels, NoModelError, UnknownVersionError


@asynccontextmanager
async def watching(models):
    """Follows the pointer, and gives a function that waits for a condition."""

    async def until(condition):
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.01)

    watch = asyncio.create_task(models.watch())
    yield until
    watch.cancel()


def test_models_follow_the_pointer_and_keep_the_previous(cache, made):
    models = LoadedModels(cache, SOURCE)
    models.refresh()
    with pytest.raises(NoModelError):
        models.choose(None)
    bring(cache, made[3], "1")
    models.refresh()
    assert models.choose(None).version == "1"
    bring(cache, made[8], "2")
    first = models.current
    models.refresh()
    assert models.choose(None).version == "2"
    assert models.choose("1") is models.previous is first
    assert [model.version for model in models.loaded] == ["2", "1"]
    with pytest.raises(UnknownVersionError, match="loaded: 2, 1"):
        models.choose("3")


def test_models_keep_what_they_have_if_the_next_is_corrupt_meanwhile(cache, made):
    models = LoadedModels(cache, SOURCE)
    bring(cache, made[3], "1")
    models.refresh()
    two = bring(cache, made[8], "2")
    (cache.path(two) / "model.tflite").write_bytes(b"corrupt")
    models.refresh()
    assert models.choose(None).version == "1"
    assert models.failure == "version 2 cannot be loaded"
    bring(cache, made[8], "2")
    models.refresh()
    assert models.choose(None).version == "2"
    assert models.failure == ""


def test_a_damaged_reference_keeps_no_model_from_answering(cache, made):
    file = cache.path(bring(cache, made[3], "1")) / drift_reference.FILE
    np.savez(file, probabilities=np.eye(10, dtype=np.float32), features=np.zeros((10, 4), "<f4"))
    content = bytearray(file.read_bytes())
    content[content.index(b"PK\1\2") + 8] ^= 1  # as if it were encrypted: no ValueError
    file.write_bytes(content)
    models = LoadedModels(cache, SOURCE)
    models.refresh()
    assert models.choose(None).shares == {}


def test_models_do_without_a_previous_that_is_corrupt(cache, made):
    one = bring(cache, made[3], "1")
    bring(cache, made[8], "2")
    (cache.path(one) / "model.tflite").write_bytes(b"corrupt")
    models = LoadedModels(cache, SOURCE)
    models.refresh()
    assert [model.version for model in models.loaded] == ["2"]


def test_what_could_not_be_loaded_once_is_tried_again(cache, made, monkeypatch):
    monkeypatch.setattr(loaded, "_WATCH_SECONDS", 0.01)
    monkeypatch.setattr(loaded, "_RETRY_SECONDS", 0.01)
    bring(cache, made[3], "1")
    models, load, left = LoadedModels(cache, SOURCE), loaded.Predictor, [1, 2, 3]

    def busy(bundle, precision):
        if left:
            left.pop()
            raise OSError("the disk is busy")
        return load(bundle, precision)

    async def follow():
        async with watching(models) as until:
            await until(lambda: models.current)

    monkeypatch.setattr(loaded, "Predictor", busy)
    asyncio.run(follow())
    assert (models.choose(None).version, models.failure) == ("1", "")


def test_the_watch_goes_on_whatever_happens(cache, made, monkeypatch, caplog):
    monkeypatch.setattr(loaded, "_WATCH_SECONDS", 0.01)
    bring(cache, made[3], "1")
    models = LoadedModels(cache, SOURCE)
    models.refresh()

    def broken(bundle, precision):
        raise ZeroDivisionError

    async def follow():
        async with watching(models) as until:
            with monkeypatch.context() as patched:
                patched.setattr(loaded, "Predictor", broken)
                bring(cache, made[8], "2")
                await until(lambda: models.failure)
            assert models.failure == "the models cannot be followed: ZeroDivisionError"
            assert models.choose(None).version == "1"
            bring(cache, made[8], "3")
            await until(lambda: models.choose(None).version == "3")
            assert models.failure == ""

    asyncio.run(follow())
    (record,) = [entry for entry in caplog.records if entry.exc_info]
    assert record.getMessage() == "the models cannot be followed"
