"""`POST /feedback`."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI, Request
from starlette.responses import Response

from serve.http import request_body
from serve.http.direct_route import Json, post
from serve.http.schemas import Feedback, FeedbackRequest, reference
from serve.prediction.feedback_store import Entry, UnknownRequestError
from serve.prediction.service import Service
from serve.telemetry.request_context import RequestContext


def install(app: FastAPI, service: Service) -> None:
    """Add the route to the application."""

    @post(app, "/feedback", {"application/json": reference(FeedbackRequest)}, Feedback)
    async def give_feedback(request: Request) -> Response:
        """Store the true digit of an earlier prediction, or of the image in this request."""
        # The Content-Type is mandatory: scripts of other origins then need a CORS preflight.
        request_body.check_json(RequestContext.of(request.scope).header(b"content-type") or "none")
        given = FeedbackRequest.model_validate_json(await request.body())
        entry = await _entry(service, given)
        changed = await asyncio.to_thread(service.feedback.add, entry)
        correct = entry.label == entry.prediction
        if changed:
            service.metrics.given(entry.model_version, correct=correct)
        answer = entry._asdict() | {"correct": correct}
        del answer["image"], answer["given_at"]
        return Json(answer)


async def _entry(service: Service, given: FeedbackRequest) -> Entry:
    """Return the feedback entry: the recent prediction, stored feedback, or the sent image's.

    Recent predictions come first, because clients reuse ids.
    """
    seen = await asyncio.to_thread(service.recent.find, given.request_id)
    if not seen:
        known = await asyncio.to_thread(service.feedback.find, given.request_id)
        if known:
            return known._replace(label=given.label)
        if given.image is None:
            raise UnknownRequestError(f"unknown request_id {given.request_id}: send the image too")
        content = request_body.image_of_text(given.image, service.settings.max_image_bytes)
        seen = await service.recognise(content, service.models.choose(None))
    return Entry(given.request_id, given.label, seen.prediction, seen.model_version, seen.image)
