"""Who is it: recognition (1:N), verification (1:1), detection, and search by embedding."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from faceward.api import answers
from faceward.api.openapi import ALWAYS, WITH_BODY, refusals
from faceward.api.parts import Recognizer, RecognizerOfImages
from faceward.api.uploads import body_of, images_of, request_body
from faceward.http_types import answered, sent
from faceward.types import Verification

router = APIRouter(prefix="/v1", tags=["recognition"], responses=refusals(*ALWAYS, *WITH_BODY))


@router.post("/recognize", openapi_extra=request_body(sent.RecognizeRequest, images=True), responses=refusals(404, 409))
async def recognize(
    work: RecognizerOfImages,
    body: Annotated[sent.RecognizeRequest, Depends(body_of(sent.RecognizeRequest, images=True))],
) -> answered.RecognitionOut:
    """Who of the regions is in the image, with a decision for each face. An image without a face has none."""
    work.caller.enter(body.region)
    found = await work.compute(
        lambda: work.service.recognize(
            body.image,
            region=body.region,
            client_id=work.caller.client_id,
            threshold=body.threshold,
            top_k=body.top_k,
            max_faces=body.max_faces,
            min_quality=body.min_quality,
            strategy=body.strategy,
            stages=work.parts.metrics.stage,
        )
    )
    for face in found.faces:
        work.parts.metrics.faces.labels(face.decision).inc()
    return answered.RecognitionOut(
        faces=[answers.recognized(face) for face in found.faces], regions=list(found.regions)
    )


@router.post("/search", openapi_extra=request_body(sent.SearchRequest), responses=refusals(404, 409))
async def search(
    work: Recognizer, body: Annotated[sent.SearchRequest, Depends(body_of(sent.SearchRequest))]
) -> answered.SearchOut:
    """The persons of the regions nearest to an embedding."""
    work.caller.enter(body.region)
    found = await work.ask(
        lambda: work.service.search(
            body.embedding,
            region=body.region,
            client_id=work.caller.client_id,
            threshold=body.threshold,
            top_k=body.top_k,
            strategy=body.strategy,
        )
    )
    return answered.SearchOut(candidates=[answers.candidate(each) for each in found], regions=body.region)


@router.post("/verify", openapi_extra=request_body(sent.VerifyRequest, images=True), responses=refusals(404))
async def verify(
    work: RecognizerOfImages, body: Annotated[sent.VerifyRequest, Depends(body_of(sent.VerifyRequest, images=True))]
) -> answered.VerificationOut:
    """Whether two photos, or a photo and an enrolled person, are of the same person."""

    def compare() -> Verification:
        (image,) = images_of(work.request, "image", [body.image])
        other = None if body.other is None else images_of(work.request, "other", [body.other])[0]
        return work.service.verify(
            image,
            other,
            person_id=body.person_id,
            regions=work.caller.key.regions,
            client_id=work.caller.client_id,
            threshold=body.threshold,
        )

    found = await work.compute(compare)
    near = answers.similarity(found.similarity)
    return answered.VerificationOut(
        verified=found.verified,
        similarity=near,
        match_score=100.0 * near,
        threshold=answers.threshold(found.decided_by),
        face_id=found.face_id,
    )


@router.post("/detect", openapi_extra=request_body(sent.DetectRequest, images=True))
async def detect(
    work: RecognizerOfImages, body: Annotated[sent.DetectRequest, Depends(body_of(sent.DetectRequest, images=True))]
) -> answered.Detection:
    """The faces in an image, the largest first, without asking who they are."""
    faces = await work.compute(lambda: work.service.detect(body.image, max_faces=body.max_faces))
    return answered.Detection(faces=[answers.detected(face) for face in faces])
