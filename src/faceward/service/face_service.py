"""FaceService: the one entry object, put together from the parts of this package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from faceward.bulk_import import Importer
from faceward.enrolment import EnrolmentGate
from faceward.photo_import import PhotoImporter
from faceward.receipts import ReceiptSigner
from faceward.retrieval import Retriever
from faceward.service.duplicates import DuplicateMode, Duplicates
from faceward.service.enrolling import Enrolling
from faceward.service.following import ModelFollower
from faceward.service.people import People
from faceward.service.privacy import Privacy
from faceward.service.recognising import Recognising
from faceward.service.regions import Regions
from faceward.service.thresholds import Thresholds
from faceward.store.decision_writer import DecisionWriter
from faceward.store.erasure import Eraser
from faceward.store.gallery import Gallery
from faceward.store.personal_data import PersonalDataStore
from faceward.store.photos import StoredPhotos
from faceward.store.regions import RegionStore
from faceward.store.search import FaceSearch
from faceward.vision import FaceAnalyzer


class ModelService(Enrolling, Recognising):
    """What a FaceService does with the parts of one model.

    margin: a face is ambiguous where a second person is less than this much further than the first; 0 turns that off.
    duplicates: what is done of a likely one at enrolment.
    """

    def __init__(
        self,
        analyzer: FaceAnalyzer,
        gate: EnrolmentGate,
        gallery: Gallery,
        search: FaceSearch,
        retriever: Retriever,
        thresholds: Thresholds,
        importer: Importer,
        photo_importer: PhotoImporter,
        *,
        margin: float = 0.0,
        duplicates: DuplicateMode = "report",
        decisions: DecisionWriter | None = None,
    ) -> None:
        likely = Duplicates(retriever, thresholds, duplicates)
        Enrolling.__init__(self, gate, likely, gallery, importer, photo_importer)
        Recognising.__init__(self, analyzer, gallery, search, retriever, thresholds, margin, decisions)


class FaceService(Enrolling, Recognising, People, Regions, Privacy):
    """The one entry object. Safe to share between threads; every call is synchronous.

    A client is a tenant: each method works inside one, `default` where `client_id` is left out, and can't reach another.
    follower: has the ModelService of the model in use, which `@by_model` methods run on. gallery, regions, thresholds,
    eraser, signer, data, photos: the parts that no model concerns. on_close: called by close(), the last acquired first.
    """

    def __init__(
        self,
        follower: ModelFollower[Any],
        gallery: Gallery,
        regions: RegionStore,
        thresholds: Thresholds,
        eraser: Eraser,
        signer: ReceiptSigner,
        data: PersonalDataStore,
        *,
        photos: StoredPhotos,
        on_close: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._follower = self._models = follower
        People.__init__(self, gallery, photos)
        Regions.__init__(self, regions, thresholds)
        Privacy.__init__(self, eraser, signer, data, self._drop_from_memory)
        self._on_close = list(on_close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        while self._on_close:
            self._on_close.pop()()

    @property
    def dimension(self) -> int:
        """Length of the embeddings of the pack in use."""
        return int(self._models.current.dimension)

    @property
    def model_id(self) -> str:
        """Names the embedding model, as the gallery records it."""
        return str(self._models.current.model_id)
