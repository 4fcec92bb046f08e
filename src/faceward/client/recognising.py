"""Who it is, over HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from faceward.client.requests import Image, Requests, files_of
from faceward.http_types import answered, fields


class Recognising(Requests):
    """The part of the client that answers who somebody is."""

    def recognize(
        self,
        image: Image,
        *,
        region: str | Sequence[str],
        threshold: float | None = None,
        top_k: int = 5,
        max_faces: int = 100,
        min_quality: float = 0.0,
        strategy: fields.StrategyName | None = None,
    ) -> answered.RecognitionOut:
        """Who of the region (or regions) is in the image: one entry for each face, the largest first."""
        fields = {
            "region": region,
            "threshold": threshold,
            "top_k": top_k,
            "max_faces": max_faces,
            "min_quality": min_quality,
            "strategy": strategy,
        }
        return self._send("POST", "/v1/recognize", answered.RecognitionOut, form=fields, files=files_of("image", image))

    def search(
        self,
        embedding: Iterable[float],
        *,
        region: str | Sequence[str],
        threshold: float | None = None,
        top_k: int = 5,
        strategy: fields.StrategyName | None = None,
    ) -> answered.SearchOut:
        """The persons of the region nearest to an embedding of the service's model."""
        body = {
            "embedding": [float(number) for number in embedding],
            "region": region if isinstance(region, str) else list(region),
            "threshold": threshold,
            "top_k": top_k,
            "strategy": strategy,
        }
        return self._send("POST", "/v1/search", answered.SearchOut, body=body)

    def verify(
        self,
        image: Image,
        other: Image | None = None,
        *,
        person_id: int | None = None,
        threshold: float | None = None,
    ) -> answered.VerificationOut:
        """Whether a photo shows the same person as another photo, or as an enrolled person."""
        files = [*files_of("image", image), *([] if other is None else files_of("other", other))]
        fields = {"person_id": person_id, "threshold": threshold}
        return self._send("POST", "/v1/verify", answered.VerificationOut, form=fields, files=files)

    def detect(self, image: Image, *, max_faces: int = 100) -> answered.Detection:
        """The faces in an image, the largest first."""
        return self._send(
            "POST", "/v1/detect", answered.Detection, form={"max_faces": max_faces}, files=files_of("image", image)
        )
