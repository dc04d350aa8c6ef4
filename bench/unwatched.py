"""The service without metrics, for comparison: `python -m bench.unwatched [--all]`.

With --all it also has no access log, no calls for spans, and no probabilities in the ring buffer of
recent answers, which only the drift job needs. Ids in responses stay, because callers read them.
The rest of the ring buffer stays too, because feedback needs it.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from typing import Any

UNKNOWN = bytes(40)  # in place of the ten probabilities


class _NoSpans(ast.NodeTransformer):
    """Replace each span by its body."""

    def visit_With(self, node: ast.With) -> Any:  # noqa: ANN401 - as in `ast`
        self.generic_visit(node)
        return node.body if "tracing.span" in ast.unparse(node.items[0]) else node


def _without_spans(name: str) -> None:
    """Import the module from its source without spans."""
    spec = importlib.util.find_spec(name)
    assert spec
    assert spec.origin
    written = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    tree = ast.fix_missing_locations(_NoSpans().visit(written))
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    exec(compile(tree, spec.origin, "exec"), module.__dict__)  # noqa: S102 - ours


def nothing(*_: object, **__: object) -> None:
    """Do nothing, in place of a method that counts."""


def _uncounted() -> None:
    from serve.telemetry.metrics import Metrics

    for name in ("began", "predicted", "doubted", "answered", "failed"):
        setattr(Metrics, name, nothing)


def _unobserved() -> None:
    _without_spans("serve.prediction.service")
    from serve.http.access_log import AccessLog
    from serve.prediction.recent_answers import RecentAnswers

    class Unknown:
        tobytes = staticmethod(lambda: UNKNOWN)

    keep = RecentAnswers.add

    def add(ring: Any, request: bytes, version: bytes, digit: int, image: Any, *_: Any) -> None:  # noqa: ANN401
        keep(ring, request, version, digit, image, Unknown)  # type: ignore[arg-type]

    RecentAnswers.add = add  # type: ignore[method-assign, assignment]
    AccessLog._end = nothing  # type: ignore[method-assign]


if __name__ == "__main__":
    if "--all" in sys.argv[1:]:
        _unobserved()
    _uncounted()
    from serve import __main__

    __main__.main()
