import tomllib
from pathlib import Path

import pytest

from serve import settings
from serve.settings import VERSION, Settings, SettingsError


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_the_version_is_that_of_the_project():
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert tomllib.loads(project.read_text())["project"]["version"] == VERSION


def test_the_defaults_are_those_of_the_contract(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = settings.load()
    assert found.model_uri == "models:/mnist-classifier@champion"
    assert found.mlflow_tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert (found.api_host, found.api_port, found.model_poll_seconds) == ("127.0.0.1", 8000, 30)
    assert (found.max_image_bytes, found.max_image_pixels, found.max_batch) == (5 << 20, 64e6, 256)
    assert found.confidence_threshold == 0.7
    assert found.api_keys == ()
    assert found.api_workers >= 1


def test_every_wrong_variable_is_named_with_what_it_must_be(monkeypatch):
    wrong = {
        "API_PORT": "99999",
        "MAX_BATCH": "many",
        "MODEL_URI": "models:/mnist-classifier",
        "MLFLOW_TRACKING_URI": "sqlite:///secret.db",
        "RATE_LIMIT": "a lot",
        "RATE_LIMIT_STORAGE": "mysql://user:secret@host",
        "CORS_ORIGINS": "example.com",
        "CORS_HEADERS": "X-API-Key X-Mine",
        "TRUSTED_PROXIES": "here",
        "LOG_LEVEL": "loud",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        settings.load()
    lines = str(caught.value).splitlines()
    assert {line.split("=")[0].split(":")[0].strip() for line in lines[1::2]} == set(wrong)
    assert "less than or equal to 65535" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_models_are_named_or_have_a_uri(monkeypatch, tmp_path):
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    monkeypatch.setenv("MODELS", "mnist-classifier, letters=/srv/letters,shapes=models:/other/4")
    digits, letters, shapes = settings.load().sources
    assert (digits.uri, digits.state, digits.default) == (
        "models:/mnist-classifier@champion",
        tmp_path,
        True,
    )
    assert (letters.uri, letters.registered) == ("/srv/letters", None)
    assert letters.state == tmp_path / "served" / "letters"
    assert shapes.registered["name"] == "other"
    assert (shapes.series("4"), digits.series("4"), shapes.moves) == ("shapes/4", "4", False)


@pytest.mark.parametrize(
    "value", ["a,a", "a=", "a/b", "../a", "a=http://host/b", "a=models:/b", "-a", "a b"]
)
def test_models_that_cannot_be_are_refused(monkeypatch, value):
    monkeypatch.setenv("MODELS", value)
    with pytest.raises(SettingsError, match="MODELS"):
        settings.load()


@pytest.mark.parametrize("value", [",", " ", " , "])
@pytest.mark.parametrize("name", ["MODELS", "API_KEYS", "CORS_ORIGINS", "CORS_HEADERS"])
def test_a_list_that_names_nothing_is_wrong(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=rf"{name}.*has no value"):
        settings.load()


def test_an_empty_variable_is_the_default(monkeypatch):
    monkeypatch.setenv("API_WORKERS", "")
    assert settings.load().api_workers >= 1


@pytest.mark.parametrize(
    ("limit", "cores"), [(None, 8), ("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1)]
)
def test_workers_share_the_cores_that_the_container_may_use(monkeypatch, tmp_path, limit, cores):
    monkeypatch.setattr(settings.os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(settings, "_CPU_LIMIT", tmp_path / "cpu.max")
    if limit:
        (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert Settings().api_workers == cores
    assert Settings().inference_threads == 1
    assert Settings(api_workers=1).inference_threads == cores
    assert Settings(api_workers=2 * cores).inference_threads == 1
    assert Settings(batch_threads=3).inference_threads == 3


def test_lists_are_comma_separated_and_keys_are_not_shown(monkeypatch):
    monkeypatch.setenv("API_KEYS", "one, two,")
    monkeypatch.setenv("CORS_ORIGINS", "https://a.example,http://b.example:81")
    found = settings.load()
    assert [key.get_secret_value() for key in found.api_keys] == ["one", "two"]
    assert found.cors_origins == ("https://a.example", "http://b.example:81")
    assert "two" not in repr(found)


def test_every_variable_has_a_sentence():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
