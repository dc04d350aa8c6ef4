"""`POST /feedback`."""

from __future__ import annotations

import asyncio
import time

from fastapi import FastAPI, Request
from starlette.responses import Response

from serve.http import request_body
from serve.http.direct_route import Json, post
from serve.http.schemas import Feedback, FeedbackRequest, reference
from serve.prediction.feedback_store import NO_DIGIT, WAIT_SECONDS, Entry, UnknownRequestError
from serve.prediction.service import Service
from serve.telemetry.request_context import RequestContext


def install(app: FastAPI, service: Service) -> None:
    """Add the route to the application."""
    takes = {"application/json": reference(FeedbackRequest)}

    @post(app, "/feedback", takes, Feedback, own=[507])
    async def give_feedback(request: Request) -> Response:
        """Store the true digit of the caller's earlier prediction, or of the image in the body."""
        # The Content-Type is mandatory: scripts of other origins then need a CORS preflight.
        context = RequestContext.of(request.scope)
        request_body.check_json(context.header(b"content-type") or "none")
        given = FeedbackRequest.model_validate_json(await request.body())
        until = time.monotonic() + WAIT_SECONDS
        entry = await _entry(service, given, context.owner, until)
        changed = await asyncio.to_thread(service.feedback.add, entry, until)
        correct, digit = entry.label == entry.prediction, given.label is not None
        if changed:
            service.metrics.given(entry.model_version, correct=correct, digit=digit)
        answer = entry._asdict() | {"label": given.label, "correct": correct}
        del answer["image"], answer["given_at"], answer["owner"]
        return Json(answer)


async def _entry(service: Service, given: FeedbackRequest, owner: str, until: float) -> Entry:
    """Return the feedback entry: the recent prediction, stored feedback, or the sent image's.

    Recent predictions come first, because clients reuse ids. Those of other owners do not count.
    """
    label = NO_DIGIT if given.label is None else given.label
    seen = await asyncio.to_thread(service.recent.find, given.request_id, owner)
    if not seen:
        known = await asyncio.to_thread(service.feedback.find, given.request_id, owner, until)
        if known:
            return known._replace(label=label)
        if given.image is None:
            raise UnknownRequestError(f"unknown request_id {given.request_id}: send the image too")
        content = request_body.image_of_text(given.image, service.settings.max_image_bytes)
        seen = await service.recognise(content, service.models.choose(None))
    about = seen.prediction, seen.model_version, seen.image
    return Entry(given.request_id, label, *about, owner=owner)
