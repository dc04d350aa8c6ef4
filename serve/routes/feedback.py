"""`POST /feedback`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from fastapi import FastAPI, Request
from starlette.responses import Response

from serve.http import request_body
from serve.http.direct_route import Json, post
from serve.http.request_body import InvalidError
from serve.http.schemas import Feedback, FeedbackRequest, reference
from serve.models.image_format import Label
from serve.prediction.feedback_store import (
    NO_DIGIT,
    WAIT_SECONDS,
    Entry,
    FeedbackStore,
    UnknownRequestError,
)
from serve.prediction.served import Served
from serve.prediction.service import Service
from serve.routes.predict import MODEL, requested
from serve.telemetry.request_context import RequestContext

_SHOWN = 30  # labels that an error names


def install(app: FastAPI, service: Service) -> None:
    """Add the route to the application."""
    takes = {"application/json": reference(FeedbackRequest)}

    @post(app, "/feedback", takes, Feedback, [MODEL], own=[507])
    async def give_feedback(request: Request) -> Response:
        """Store the true label of the caller's earlier prediction, or of the image in the body."""
        # The Content-Type is mandatory: scripts of other origins then need a CORS preflight.
        context = RequestContext.of(request.scope)
        request_body.check_json(context.header(b"content-type") or "none")
        served = requested(service, request)
        given = FeedbackRequest.model_validate_json(await request.body())
        _check_label(given.label, served.labels)
        until = time.monotonic() + WAIT_SECONDS
        entry, store = await _entry(service, served, given, context.owner, until)
        changed = await asyncio.to_thread(store.add, entry, until)
        correct, digit = entry.label == entry.prediction, given.label is not None
        if changed:
            series = served.series(entry.model_version)
            service.metrics.given(series, correct=correct, digit=digit)
        answer = entry._asdict() | {"label": given.label, "correct": correct}
        del answer["image"], answer["given_at"], answer["owner"]
        return Json(answer)


def _check_label(label: Label | None, labels: Sequence[Label]) -> None:
    if label is not None and label not in labels:
        shown = ", ".join(map(str, labels[:_SHOWN])) + (", …" if len(labels) > _SHOWN else "")
        raise InvalidError(f"label: must be one of {shown}, or null")


async def _entry(
    service: Service, served: Served, given: FeedbackRequest, owner: str, until: float
) -> tuple[Entry, FeedbackStore]:
    """Return the feedback entry: the recent prediction, stored feedback, or the sent image's.

    Recent predictions come first, because clients reuse ids. Those of other owners do not count.
    """
    label = NO_DIGIT if given.label is None else given.label
    seen = await asyncio.to_thread(served.find, given.request_id, owner)
    if not seen:
        known = await asyncio.to_thread(served.find_feedback, given.request_id, owner, until)
        if known:
            return known[0]._replace(label=label), known[1]
        if given.image is None:
            raise UnknownRequestError(f"unknown request_id {given.request_id}: send the image too")
        content = request_body.image_of_text(given.image, service.settings.max_image_bytes)
        seen = await service.recognise(content, served.models.choose(None))
    about = seen.prediction, seen.model_version, seen.image
    entry = Entry(given.request_id, label, *about, owner=owner)
    return entry, served.feedback(seen.images)
