import pytest

from serve.models.bundle_cache import BundleCache


@pytest.fixture
def cache(tmp_path):
    return BundleCache(tmp_path / "models", "somewhere")
