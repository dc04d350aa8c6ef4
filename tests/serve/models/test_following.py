import asyncio

import pytest

from serve.models import loaded
from serve.models.bundle_cache import BundleCache, name_release
from serve.models.loaded import LoadedModels


@pytest.fixture
def cache(tmp_path):
    return BundleCache(tmp_path / "models", "somewhere")


def bring(cache, bundle, version):
    with cache.lock():
        cache.add(name_release(version, version), bundle, made=0)


def test_files_that_go_while_they_are_read_are_a_model_that_cannot_be_loaded(
    cache, made, monkeypatch
):
    bring(cache, made[3], "1")
    following = LoadedModels(cache)
    following.refresh()
    bring(cache, made[8], "2")

    def pruned(bundle):
        raise FileNotFoundError(bundle)

    with monkeypatch.context() as patched:
        patched.setattr(loaded, "Predictor", pruned)
        following.refresh()
    assert following.choose(None).version == "1"
    assert following.failure == "version 2 cannot be loaded"
    following.refresh()
    assert following.choose(None).version == "2"
    assert following.failure == ""


def test_what_could_not_be_loaded_once_is_tried_again(cache, made, monkeypatch):
    monkeypatch.setattr(loaded, "_WATCH_SECONDS", 0.01)
    monkeypatch.setattr(loaded, "_RETRY_SECONDS", 0.01)
    bring(cache, made[3], "1")
    following, load, left = LoadedModels(cache), loaded.Predictor, [1, 2, 3]

    def busy(bundle):
        if left:
            left.pop()
            raise OSError("the disk is busy")
        return load(bundle)

    async def follow():
        watching = asyncio.create_task(following.watch())
        async with asyncio.timeout(30):
            while not following.current:
                await asyncio.sleep(0.01)
        watching.cancel()

    monkeypatch.setattr(loaded, "Predictor", busy)
    asyncio.run(follow())
    assert (following.choose(None).version, following.failure) == ("1", "")


def test_the_watch_goes_on_whatever_happens(cache, made, monkeypatch, caplog):
    monkeypatch.setattr(loaded, "_WATCH_SECONDS", 0.01)
    bring(cache, made[3], "1")
    following = LoadedModels(cache)
    following.refresh()

    def broken(bundle):
        raise ZeroDivisionError

    async def until(condition):
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.01)

    async def follow():
        watching = asyncio.create_task(following.watch())
        with monkeypatch.context() as patched:
            patched.setattr(loaded, "Predictor", broken)
            bring(cache, made[8], "2")
            await until(lambda: following.failure)
        assert following.failure == "the models cannot be followed: ZeroDivisionError"
        assert following.choose(None).version == "1"
        bring(cache, made[8], "3")
        await until(lambda: following.choose(None).version == "3")
        assert following.failure == ""
        watching.cancel()

    asyncio.run(follow())
    (record,) = [entry for entry in caplog.records if entry.exc_info]
    assert record.getMessage() == "the models cannot be followed"
