"""A look at the registry without MLflow: is the alias where it was?

MLflow takes seconds to import and 150 MB. So it is only asked when this look cannot tell.
"""

import json
import sqlite3
from base64 import b64encode
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlencode, urlsplit
from urllib.request import Request, urlopen

_SECONDS = 5  # to connect, and for each part of an answer
_ALIAS = "/api/2.0/mlflow/registered-models/alias"  # of MLflow's REST API
_ROW = (
    "SELECT * FROM model_versions JOIN registered_model_aliases USING (name, version)"
    " WHERE name = ? AND alias = ?"
)


def look(uri: str, name: str, alias: str) -> str | None:
    """Return all that the registry says of the version with the alias; None if it cannot be told.

    What it returns is for comparison alone: as long as it is the same, nothing has changed.
    """
    try:
        if uri.startswith(("http://", "https://")):
            return _answered(uri, name, alias)
        if uri.startswith("sqlite:///"):
            return _stored(uri.removeprefix("sqlite:///").partition("?")[0], name, alias)
    except (OSError, HTTPException, ValueError, TypeError, LookupError, sqlite3.Error):
        pass  # MLflow will say what is wrong
    return None


def _answered(uri: str, name: str, alias: str) -> str:
    """Ask a server; one that wants other credentials than those in its address refuses."""
    address = urlsplit(uri)
    host = address.netloc.rpartition("@")[2]
    query = urlencode({"name": name, "alias": alias})
    path = f"{address.path.rstrip('/')}{_ALIAS}"
    request = Request(f"{address.scheme}://{host}{path}?{query}")  # noqa: S310
    if address.username:
        pair = f"{unquote(address.username)}:{unquote(address.password or '')}"
        basic = f"Basic {b64encode(pair.encode()).decode()}"
        request.add_unredirected_header("Authorization", basic)  # for this host alone
    with urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310 - http or https, as above
        return json.dumps(json.load(answer)["model_version"], sort_keys=True)


def _stored(database: str, name: str, alias: str) -> str:
    """Read a local database; that of another version of MLflow may have no such tables."""
    address = f"{Path(database).as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, timeout=_SECONDS, uri=True)) as connection:
        (row,) = connection.execute(_ROW, (name, alias)).fetchall()
    return repr(row)
