"""Registry download: copy models from where `MODEL_URI` points into the bundle cache.

A process that the puller starts imports MLflow for a `RegistrySync`, and no other does. A folder is
copied once, by the process that serves it. If anything fails, the model in service stays.
"""

from __future__ import annotations

import logging
import random
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from serve.models import bundle_cache, bundle_digest
from serve.models.bundle_cache import INCOMING, Release
from serve.models.predictor import BundleError
from serve.settings import Settings
from serve.sources import Source
from serve.telemetry.metrics import DEAD, DIED, HUNG, INVALID, SUCCESS, UNAVAILABLE, UNEXPECTED

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)

# What `/health` says after the death of the puller, and what the next puller counts.
DEATHS = {
    DEAD: ("the process that follows the registry died", DIED),
    HUNG: ("a check of the registry did not end in time", UNAVAILABLE),
}
_FIRST_RETRY = 1.0  # seconds; doubles up to the poll interval
_NOT_FOUND = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}  # the second for an alias
# Tags that `pipeline.register` sets, and the digest that must match each of them.
_DIGESTS = {
    "bundle.digest": bundle_digest.model_digest,
    "bundle.likelihood": bundle_digest.likelihood_digest,
    "bundle.int8": bundle_digest.int8_digest,
}


def jittered(seconds: float) -> float:
    """Return about so many seconds: replicas should not ask the registry all at once."""
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311 - no secret


class RegistryError(Exception):
    """The registry cannot be used; `reason`: what `/health` says of it."""

    def __init__(self, reason: str = "the registry cannot be read", detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


def sync_folder(settings: Settings, source: Source, count: Callable[[str], None]) -> None:
    """Put the bundle in the folder that is the source into service.

    On failure the last good one stays, and the cache records why. `count` gets the outcome.
    Idempotent: an intact bundle that is already in service is not copied again.
    """
    target, folder = bundle_cache.open_cache(settings, source), Path(source.uri)
    try:
        with target.lock():
            version = bundle_digest.identity(folder)[:12]
            release = bundle_cache.name_release(version, bundle_cache.digest_files(folder))
            pointer = target.pointer()
            if not pointer or pointer.current != release or not target.is_intact(release):
                target.add(release, folder, (folder / "model.json").stat().st_mtime)
                count(SUCCESS)
            target.set_failure("")
    except (BundleError, OSError) as error:
        logger.error("%s=%s: %s", source.variable, folder, error)
        count(INVALID)
        target.set_failure(f"the bundle in {source.variable} cannot be served")


class RegistrySync:
    """Bring the version of a registered model that has the alias, or one fixed version of it.

    `count` gets the outcome of every attempt to bring a version into service.
    """

    def __init__(self, settings: Settings, source: Source, count: Callable[[str], None]) -> None:
        assert source.registered
        self._registered, self._variable = source.registered, source.variable
        self._uri = settings.mlflow_tracking_uri
        self._cache = bundle_cache.open_cache(settings, source)
        self._count = count

    def pull(self) -> bool:
        """Put the version that the source means now into service; return False on a failure.

        Idempotent: a version that is in service and intact is not downloaded again.
        """
        try:
            with self._cache.lock():
                with _registry_errors():
                    version = self._resolve()
                    self._bring(version)
                self._cache.set_failure("")
                self._cache.set_checked()
                return True
        except BundleError as error:
            logger.error("version %s cannot be served: %s", version.version, _masked(error))
            self._fail(INVALID, f"version {version.version} of the registry is no valid bundle")
        except RegistryError as error:
            logger.error("%s", error)
            self._fail(UNAVAILABLE, error.reason)
        except Exception as error:  # an unexpected error must not end the watch
            kind = type(error).__name__
            # The error itself is not logged: it, or its causes, may contain a password.
            shown = Exception(f"{kind}: {_masked(error)}").with_traceback(error.__traceback__)
            logger.error("the model cannot be brought: %s", shown, exc_info=shown)
            self._fail(UNEXPECTED, f"the model cannot be brought: {kind}")
        return False

    def _fail(self, outcome: str, reason: str) -> None:
        self._count(outcome)
        self._cache.set_failure(reason)

    def _resolve(self) -> ModelVersion:
        client = self._client()
        from mlflow.exceptions import MlflowException

        name, alias, number = self._registered.group("name", "alias", "version")
        try:
            if number:
                return client.get_model_version(name, number)
            return client.get_model_version_by_alias(name, alias)
        except MlflowException as error:
            # A response without JSON is not MLflow's: its "not found" means a wrong address.
            if error.error_code not in _NOT_FOUND or error.message.startswith("API request to"):
                raise
            if number:
                missing = f"{name} has no version {number}: change {self._variable}"
            else:
                missing = f"{name} has no version with the alias {alias}: make repro"
            raise RegistryError(missing) from None

    def _client(self) -> MlflowClient:
        database = self._uri.removeprefix("sqlite:///").partition("?")[0]
        if self._uri.startswith("sqlite:") and not Path(database).exists():
            # MLflow would create it
            raise RegistryError(detail=f"{database} does not exist: make repro")
        import mlflow

        mlflow.set_tracking_uri(self._uri)
        mlflow.set_registry_uri(self._uri)
        return mlflow.MlflowClient()

    def _bring(self, version: ModelVersion) -> None:
        identity = f"{self._uri} {version.name} {version.run_id} {version.creation_timestamp}"
        release = bundle_cache.name_release(str(version.version), identity)
        pointer = self._cache.pointer()
        if pointer and release in pointer and self._cache.is_intact(release):
            if pointer.current == release:
                return
            self._cache.publish(release)
        else:
            self._download(version, release)
        self._count(SUCCESS)
        logger.info("brought version %s of %s", version.version, version.name)

    def _download(self, version: ModelVersion, release: Release) -> None:
        import mlflow

        with tempfile.TemporaryDirectory(prefix=INCOMING, dir=self._cache.folder) as folder:
            uri = f"models:/{version.name}/{version.version}"
            files = Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder))
            for tag, digest in _DIGESTS.items():
                registered = version.tags.get(tag)
                if registered and registered != digest(files):
                    raise BundleError("it is not the bundle that was registered")
            self._cache.add(release, files, version.creation_timestamp / 1000)


@contextmanager
def _registry_errors() -> Iterator[None]:
    """Turn errors of MLflow, its database or the network into RegistryError.

    An ImportError means that the driver for the address is not installed.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        raise RegistryError(detail=_masked(error)) from None


def _masked(error: Exception) -> str:
    """Return the first line of the error's message, with user and password of addresses masked.

    A password may contain `/` or `@`, so everything up to the last `@` is masked.
    """
    line = str(error).strip().partition("\n")[0]
    return re.sub(r"(?<!/)//(?!/)\S*@", "//***@", line)


def bring(settings: Settings, count: Callable[[str], None], wait: Callable[[float], None]) -> None:
    """Pull all models until that ends well, later and later; `wait` waits so many seconds.

    As long as one fails, the others are still followed.
    """
    pullers = [RegistrySync(settings, source, count) for source in settings.followed]
    retry = _FIRST_RETRY
    while True:
        ends: list[bool] = []
        for each in pullers:
            if ends:
                wait(0)  # a sign of life
            ends.append(each.pull())
        if all(ends):
            return
        retry = min(retry * 2, max(settings.model_poll_seconds, _FIRST_RETRY))
        wait(jittered(retry))


def record_death(settings: Settings, reason: str) -> None:
    """Record for `/health` how the puller ended; the next puller counts it in the metrics."""
    for source in settings.followed:
        bundle_cache.open_cache(settings, source).set_failure(DEATHS[reason][0])
