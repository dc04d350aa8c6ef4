import json
import os
import shutil
from pathlib import Path

import pytest
from support.bundles import SOURCE, bring, write_bundle

from serve.models import bundle_cache, registry_sync
from serve.models.bundle_cache import BundleCache, Pointer
from serve.models.loaded import LoadedModels
from serve.models.predictor import BundleError


def test_the_pointer_moves_and_older_versions_go(cache, made):
    assert cache.pointer() is None
    one = bring(cache, made[3], "1")
    assert cache.pointer() == Pointer(one, None)
    two = bring(cache, made[8], "2")
    assert cache.pointer() == Pointer(two, one)
    three = bring(cache, made[3], "3")
    assert cache.pointer() == Pointer(three, two)
    assert not cache.path(one).exists()
    with cache.lock():
        cache.publish(two)  # back
    assert cache.pointer() == Pointer(two, three)
    with cache.lock():
        cache.publish(two)  # again
    assert cache.pointer() == Pointer(two, three)


def test_what_a_dead_holder_left_goes_with_the_next_lock(cache, made):
    kept = bring(cache, made[3], "1")
    (cache.folder / ".incoming-abc" / "inner").mkdir(parents=True)
    with cache.lock():
        assert [path.name for path in cache.folder.iterdir() if path.is_dir()] == [kept.folder]


def test_what_another_source_left_is_not_served(cache, made):
    bring(cache, made[3], "1")
    cache.set_failure("broken")
    other = BundleCache(cache.folder, "elsewhere")
    assert other.pointer() is None
    assert other.failure() == ""
    assert cache.failure() == "broken"


@pytest.mark.parametrize("damage", ["model", "json", "hash", "answer", "missing"])
def test_a_damaged_bundle_changes_nothing(cache, made, tmp_path, digit_file, damage):
    kept = bring(cache, made[3], "1")
    bad = tmp_path / "bad"
    shutil.copytree(made[8], bad)
    if damage == "model":
        write_bundle(bad, b"TFL3 no model")
    elif damage == "json":
        (bad / "model.json").write_text("{")
    elif damage == "hash":
        content = bytearray((bad / "model.tflite").read_bytes())
        content[-1] ^= 1
        (bad / "model.tflite").write_bytes(content)
    elif damage == "answer":
        write_bundle(bad, digit_file(8), temperature=float("nan"))
    else:
        (bad / "model.tflite").unlink()
    before = cache.stamp()
    with pytest.raises(BundleError):
        bring(cache, bad, "2")
    assert cache.pointer() == Pointer(kept, None)
    assert cache.stamp() == before


def test_a_torn_pointer_is_none(cache, made):
    bring(cache, made[3], "1")
    for torn in ("", "{", "[]", "null"):
        (cache.folder / "current.json").write_text(torn)
        assert cache.pointer() is None


@pytest.mark.parametrize(
    "changed",
    [
        {"current": {"folder": "a", "version": "1", "new": 1}},
        {"current": {"folder": 1, "version": "1"}},
        {"current": None},
        {"previous": {"name": "a"}},
        {"previous": "a"},
    ],
)
def test_a_pointer_of_another_shape_is_none_until_the_next(cache, made, caplog, changed):
    bring(cache, made[3], "1")
    path = cache.folder / "current.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    assert cache.pointer() is None
    assert "current.json is not as expected" in caplog.text
    release = bring(cache, made[3], "1")
    assert cache.pointer() == Pointer(release, None)


def test_a_status_of_another_shape_is_no_failure(cache, made):
    cache.folder.mkdir()
    cache.set_failure("broken")
    path = cache.folder / "status.json"
    content = json.loads(path.read_text())
    content["why"] = content.pop("failure")
    path.write_text(json.dumps(content))
    assert cache.failure() == ""


def test_all_is_on_the_disk_before_the_pointer_names_it(cache, made, monkeypatch):
    done = []

    def note(name, what):
        real = getattr(bundle_cache.os, name)

        def noted(*arguments):
            done.append(what(*arguments))
            return real(*arguments)

        monkeypatch.setattr(bundle_cache.os, name, noted)

    note("fsync", lambda opened: Path(f"/proc/self/fd/{opened}").readlink().name)
    note("replace", lambda old, new: f"-> {Path(new).name}")
    release = bring(cache, made[3], "1")
    pid = os.getpid()
    assert set(done[:4]) == {"model.tflite", "likelihood.tflite", "model.json", "model_card.md"}
    assert done[4].startswith(".incoming-")
    assert done[5:] == [
        *(f"-> {release.folder}", "models"),
        *(f".current.json.{pid}", "-> current.json", "models"),
    ]


def test_a_corrupt_copy_of_a_folder_is_brought_again(settings, made):
    given, outcomes = settings(model_uri=str(made[3])), []
    registry_sync.sync_folder(given, *given.sources, outcomes.append)
    cache = bundle_cache.open_cache(given, *given.sources)
    copy = cache.path(cache.pointer().current) / "model.tflite"
    copy.write_bytes(copy.read_bytes()[:1000])
    models = LoadedModels(cache, SOURCE)
    models.refresh()
    assert models.current is None
    registry_sync.sync_folder(given, *given.sources, outcomes.append)
    models.refresh()
    assert models.current
    assert outcomes == ["success", "success"]


def test_a_folder_is_brought_once_and_its_last_good_bundle_stays(settings, made, tmp_path):
    shutil.copytree(made[3], tmp_path / "bundle")
    given = settings(model_uri=str(tmp_path / "bundle"))
    outcomes = []
    for _ in range(2):
        registry_sync.sync_folder(given, *given.sources, outcomes.append)
    assert outcomes == ["success"]
    (tmp_path / "bundle" / "model.tflite").write_bytes(b"corrupt")
    description = json.loads((tmp_path / "bundle" / "model.json").read_text())
    description["temperature"] = 2
    (tmp_path / "bundle" / "model.json").write_text(json.dumps(description))
    registry_sync.sync_folder(given, *given.sources, outcomes.append)
    assert outcomes == ["success", "bundle_invalid"]
    cache = bundle_cache.open_cache(given, *given.sources)
    assert cache.failure() == "the bundle in MODEL_URI cannot be served"
    models = LoadedModels(cache, SOURCE)
    models.refresh()
    assert models.choose(None).description["temperature"] == 1


@pytest.mark.fault("folder with new metrics and the same weights", "0", "the new files are brought")
@pytest.mark.parametrize("changed", ["model.json", "model_card.md", "reference.npz"])
def test_a_folder_with_the_same_weights_and_another_file_is_brought(
    settings, made, tmp_path, changed
):
    folder = tmp_path / "bundle"
    shutil.copytree(made[3], folder)
    (folder / "model_card.md").write_text("card")
    (folder / "reference.npz").write_bytes(b"old")
    given, outcomes = settings(model_uri=str(folder)), []
    registry_sync.sync_folder(given, *given.sources, outcomes.append)
    with (folder / changed).open("ab") as file:
        file.write(b"\n")
    registry_sync.sync_folder(given, *given.sources, outcomes.append)
    cache = bundle_cache.open_cache(given, *given.sources)
    pointer = cache.pointer()
    for name in ("model.json", "model_card.md", "reference.npz"):
        brought = cache.path(pointer.current) / name
        assert brought.read_bytes() == (folder / name).read_bytes()
    assert pointer.current.version == pointer.previous.version
    assert outcomes == ["success"] * 2


def test_more_classes_than_a_byte_counts_are_refused(colours, monkeypatch):
    bundle_cache.verify_bundle(colours)
    monkeypatch.setattr(bundle_cache, "MAX_CLASSES", 4)
    with pytest.raises(BundleError, match="more than 4 classes"):
        bundle_cache.verify_bundle(colours)
