"""The digests that identify a bundle: registered versions carry them, so their values stay."""

import hashlib
import json
import shutil

import pytest

from serve.models import bundle_digest
from serve.models.predictor import BundleError

DESCRIPTION = {
    "sha256": "ab" * 32,
    "temperature": 1.25,
    "likelihood": {"sha256": "cd" * 32, "threshold": 0.5},
}


def digests(folder, **changed):
    """The three digests of a bundle with this description."""
    description = {k: v for k, v in (DESCRIPTION | changed).items() if v is not None}
    (folder / "model.json").write_text(json.dumps(description))
    functions = (
        *(bundle_digest.model_digest, bundle_digest.likelihood_digest),
        bundle_digest.identity,
    )
    return tuple(function(folder) for function in functions)


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_they_have_the_values_that_registered_versions_carry(tmp_path):
    model, likelihood = sha256(f"{'ab' * 32} 1.25"), sha256(f"{'cd' * 32} 0.5")
    assert digests(tmp_path) == (model, likelihood, sha256(f"{model} {likelihood}"))
    assert digests(tmp_path, likelihood=None) == (model, "", model)


def test_they_change_with_what_decides_the_answers_alone(tmp_path):
    model, likelihood, identity = digests(tmp_path)
    assert digests(tmp_path, metrics={"ece": 0.1}, name="other") == (model, likelihood, identity)
    other = digests(tmp_path, temperature=1.5)
    assert other[1] == likelihood
    assert {model, identity}.isdisjoint(other)
    threshold = {"sha256": "cd" * 32, "threshold": 0.6}
    other = digests(tmp_path, likelihood=threshold)
    assert other[0] == model
    assert {likelihood, identity}.isdisjoint(other)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"sha256": "ab"}'])
def test_a_folder_without_a_whole_description_is_no_bundle(tmp_path, content):
    if content is not None:
        (tmp_path / "model.json").write_text(content)
    with pytest.raises(BundleError, match="not a model bundle"):
        bundle_digest.identity(tmp_path)


def test_names_of_classes_are_part_of_what_is_registered(colours, made, tmp_path):
    shutil.copytree(colours, tmp_path / "renamed")
    described = json.loads((colours / "model.json").read_text())
    described["classes"] = [*described["classes"][1:], "another"]
    (tmp_path / "renamed/model.json").write_text(json.dumps(described))
    assert bundle_digest.model_digest(colours) != bundle_digest.model_digest(tmp_path / "renamed")
    assert bundle_digest.identity(colours) != bundle_digest.identity(tmp_path / "renamed")
    digits = json.loads((made[3] / "model.json").read_text())
    decisive = f"{digits['sha256']} {digits['temperature']}"  # as of earlier services
    assert bundle_digest.model_digest(made[3]) == hashlib.sha256(decisive.encode()).hexdigest()
