"""Registration, promotion and rollback on a real MLflow store, with bundles of no model."""

import json
import shutil
from types import SimpleNamespace

import pytest

from pipeline.registry import mlflow_runs, versions
from serve.models.predictor import BundleError

MODEL = "a-classifier"


@pytest.fixture
def client(empty_store, workspace, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, workspace / "mlflow.db")
    return mlflow_runs.connect()


@pytest.fixture(autouse=True)
def corrupt(monkeypatch):
    """Bundles count as intact unless their temperature is in here."""
    temperatures = set()

    def opened(folder):
        description = json.loads((folder / "model.json").read_text())
        if description["temperature"] in temperatures:
            raise BundleError("corrupt")
        return [SimpleNamespace(description=description)]

    monkeypatch.setattr(versions, "each_precision", opened)
    return temperatures


@pytest.fixture
def register(client, workspace):
    """Registers a bundle of that temperature, which stands for its model."""
    experiment = client.create_experiment("mnist", (workspace / "mlartifacts").as_uri())

    def ensure(temperature, likelihood=None, int8=None, **tags):
        description = {"sha256": "ab", "temperature": temperature}
        if likelihood:
            description["likelihood"] = {"sha256": "cd", "threshold": likelihood}
        if int8:
            description["precisions"] = {"int8": {"sha256": "ef", "temperature": int8}}
        (workspace / "bundle").mkdir(exist_ok=True)
        (workspace / "bundle/model.json").write_text(json.dumps(description))
        run = client.create_run(experiment)
        return versions.ensure_registered(client, MODEL, workspace / "bundle", run, tags)

    return ensure


def fresh(client, version):
    return client.get_model_version(MODEL, str(version.version))


def aliases(client):
    (model,) = client.search_registered_models(f"name = '{MODEL}'")
    return {alias: int(number) for alias, number in model.aliases.items()}


def promoted(client, *registered):
    for version in registered:
        versions.promote(client, fresh(client, version), {"decision": "champion"})


def moves(client):
    return [(move["action"], move["version"]) for move in versions.history(client, MODEL)]


def test_a_bundle_is_registered_once_and_found_again(client, register):
    one = register(1.0, run="3")
    assert (int(one.version), one.tags["run"]) == (1, "3")
    assert versions.LIKELIHOOD not in one.tags
    assert register(1.0).version == one.version
    assert int(register(2.0).version) == 2
    assert int(register(1.0, likelihood=0.5).version) == 3
    assert int(register(1.0, likelihood=0.6).version) == 4
    assert int(register(1.0, likelihood=0.5).version) == 3
    assert int(register(1.0, likelihood=0.5, int8=1.0).version) == 5
    assert int(register(1.0, likelihood=0.5, int8=2.0).version) == 6
    assert int(register(1.0, likelihood=0.5, int8=1.0).version) == 5


def test_the_latest_of_equal_versions_is_taken(client, register):
    one = register(1.0)
    for _ in range(10):
        client.create_model_version(MODEL, one.source, one.run_id, tags=one.tags)
    assert int(register(1.0).version) == 11


def test_lost_files_are_uploaded_again(client, register, workspace):
    version = register(1.0)
    shutil.rmtree(workspace / "mlartifacts")
    assert not versions.readable(version)
    assert register(1.0).version == version.version
    assert versions.readable(version)


def test_identity_is_of_model_and_score(register):
    one, two = register(1.0), register(1.0, likelihood=0.5)
    assert versions.identity(one) == one.tags[versions.BUNDLE]
    assert versions.identity(two) == f"{versions.identity(one)}+{two.tags[versions.LIKELIHOOD]}"


def test_a_promotion_moves_both_aliases_and_is_remembered(client, register):
    one, two = register(1.0), register(2.0)
    promoted(client, one)
    assert aliases(client) == {"champion": 1}
    promoted(client, two)
    assert aliases(client) == {"champion": 2, "previous": 1}
    tags = fresh(client, two).tags
    assert tags["decision"] == "champion"
    assert tags[versions.PROMOTED] > fresh(client, one).tags[versions.PROMOTED]
    first, second = versions.history(client, MODEL)
    assert (first["action"], first["version"], first["replaced"]) == ("promote", 1, None)
    assert (second["bundle"], second["replaced"]) == (
        versions.identity(two),
        versions.identity(one),
    )
    versions.finish(client, fresh(client, two))
    assert len(versions.history(client, MODEL)) == 2


def test_a_challenger_that_is_promoted_is_no_longer_one(client, register):
    one, two = register(1.0), register(2.0)
    versions.challenge(client, two, {"decision": "challenger: slow"})
    promoted(client, one)
    assert aliases(client) == {"champion": 1, "challenger": 2}
    assert fresh(client, two).tags["decision"] == "challenger: slow"
    promoted(client, two)
    assert aliases(client) == {"champion": 2, "previous": 1}


def test_rollback_goes_to_the_latest_earlier_champion(client, register):
    one, two, three = register(1.0), register(2.0), register(3.0)
    register(4.0)  # never promoted
    promoted(client, two, one, three)
    old, new = versions.roll_back(client, MODEL)
    assert (int(old.version), int(new.version)) == (3, 1)
    assert aliases(client) == {"champion": 1, "previous": 2}
    old, new = versions.roll_back(client, MODEL)
    assert (int(old.version), int(new.version)) == (1, 2)
    assert aliases(client) == {"champion": 2}
    assert versions.roll_back(client, MODEL) is None
    assert moves(client)[-2:] == [("rollback", 1), ("rollback", 2)]
    assert all(versions.ROLLED_BACK in fresh(client, each).tags for each in (one, three))
    assert versions.ROLLED_BACK not in fresh(client, two).tags


def test_rollback_passes_by_what_cannot_be_read(client, register, corrupt):
    one, two, three = register(1.0), register(2.0), register(3.0)
    promoted(client, one, two, three)
    corrupt.add(2.0)
    assert int(versions.roll_back(client, MODEL)[1].version) == 1


def test_without_its_alias_the_last_champion_comes_back(client, register):
    assert versions.roll_back(client, MODEL) is None  # there never was one
    promoted(client, register(1.0), register(2.0))
    client.delete_registered_model_alias(MODEL, versions.CHAMPION)
    old, new = versions.roll_back(client, MODEL)
    assert (old, int(new.version)) == (None, 2)
    assert aliases(client) == {"champion": 2, "previous": 1}


def test_a_rollback_is_remembered_until_the_next_promotion(client, register):
    one, two = register(1.0), register(2.0)
    promoted(client, one, two)
    assert versions.ROLLED_BACK not in fresh(client, one).tags, "replaced, not rolled back"
    versions.roll_back(client, MODEL)
    assert versions.ROLLED_BACK in fresh(client, two).tags
    promoted(client, two)
    assert versions.ROLLED_BACK not in fresh(client, two).tags
    assert moves(client) == [("promote", 1), ("promote", 2), ("rollback", 1), ("promote", 2)]


def test_a_store_is_missing_until_it_is_connected(workspace, monkeypatch, empty_store):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace}/mlflow.db")
    assert not mlflow_runs.store_exists()
    shutil.copy(empty_store, workspace / "mlflow.db")
    assert mlflow_runs.store_exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace}/mlflow.db?timeout=9")
    assert mlflow_runs.store_exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.com")
    assert mlflow_runs.store_exists()
