"""What works with the models of one pack; a change of the model replaces it as a whole."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from faceward.bulk_import import Importer
from faceward.enrolment import EnrolmentGate
from faceward.evaluation.audit import RecallAudit
from faceward.evaluation.noise_model import NoiseModel
from faceward.factory.deployment import Deployment
from faceward.factory.models import open_analyzer, threshold_of
from faceward.factory.records import photo_vault
from faceward.photo_import import PhotoImporter
from faceward.retrieval import KeeperSettings, RetrievalSettings, Retriever, SketchKeeper
from faceward.service import ModelService
from faceward.service.thresholds import Thresholds
from faceward.settings import Settings
from faceward.sketches import SketchCache
from faceward.store.bulk import BulkWriter
from faceward.store.database import Database
from faceward.store.decision_writer import DecisionWriter
from faceward.store.gallery import Gallery
from faceward.store.schema import pgvector_version
from faceward.store.scopes import ScopeReader
from faceward.store.search import FaceSearch
from faceward.vision import FaceAnalyzer, ModelPack, PackManifest


class SearchParts:
    """What searches one database, as the settings say."""

    def __init__(self, settings: Settings, database: Database, model_id: str, dimension: int) -> None:
        given = settings.search
        iterates = pgvector_version(database) >= (0, 8)  # an older one has no such setting
        self.dimension = dimension
        self.scopes = ScopeReader(database, model_id, dimension)
        self.search = FaceSearch(database, given.most_at_once)
        self.keeper = SketchKeeper(
            self.scopes,
            SketchCache(given.sketch_bytes, dimension),
            KeeperSettings(idle_seconds=given.refresh_seconds),
        )
        self.retriever = Retriever(
            self.search,
            Gallery(database, model_id),
            self.keeper,
            model_id=model_id,
            dimension=dimension,
            settings=RetrievalSettings(
                strategy=given.strategy,
                sketch_from=given.sketch_from,
                ef_search=given.hnsw_ef_search,
                iterative_scan=given.hnsw_iterative_scan if iterates else "off",
                halfvec=given.hnsw_halfvec,
            ),
        )

    def audit(self, floor: float) -> RecallAudit:
        """Of these searches. floor: the threshold in use."""
        return RecallAudit(self.scopes, self.retriever, self._noise, floor=floor)

    def _noise(self) -> NoiseModel | None:
        noise = NoiseModel.load()
        return noise if noise.dimension == self.dimension else None


@dataclass(frozen=True, slots=True)
class LoadedPack:
    """What works with the models of one pack. analyzer, sketches: closed by close()."""

    manifest: PackManifest
    service: ModelService
    analyzer: FaceAnalyzer
    sketches: SketchKeeper
    audit: RecallAudit

    @property
    def model_id(self) -> str:
        return self.manifest.model_id

    @property
    def dimension(self) -> int:
        return self.manifest.embedding.dimension

    def close(self) -> None:
        self.sketches.close()
        self.analyzer.close()


def load_pack(
    settings: Settings,
    pack: ModelPack,
    deployment: Deployment,
    database: Database,
    searched: Database,
    thresholds: Thresholds,
    decisions: DecisionWriter | None,
) -> LoadedPack:
    with ExitStack() as opened:
        analyzer = open_analyzer(settings, pack)
        opened.callback(analyzer.close)
        most = settings.enroll.max_regions
        vault = photo_vault(settings)
        gallery = Gallery(database, pack.model_id, max_regions=most, vault=vault)
        parts = SearchParts(settings, searched, pack.model_id, pack.dimension)
        opened.callback(parts.keeper.close)
        writer = BulkWriter(database, gallery, pack.model_id, max_regions=most, vault=vault)
        importer = Importer(
            writer,
            pack.dimension,
            large_import=deployment.schema.set_graph_aside,
            large_from=settings.search.hnsw_rebuild_from,
        )
        gate = EnrolmentGate(
            analyzer,
            min_quality=settings.enroll.min_quality,
            min_face=settings.enroll.min_face,
            images=settings.images.store,
        )
        photo_importer = PhotoImporter(
            gate,
            writer,
            max_bytes=settings.images.max_bytes,
            large_import=deployment.schema.set_graph_aside,
            large_from=settings.search.hnsw_rebuild_from,
        )
        threshold = threshold_of(settings, pack.manifest)
        service = ModelService(
            analyzer,
            gate,
            gallery,
            parts.search,
            parts.retriever,
            # Of the database that is searched: it answers recognitions also while the other one is away.
            thresholds.with_default(threshold),
            importer,
            photo_importer,
            margin=settings.search.margin,
            duplicates=settings.enroll.duplicates,
            decisions=decisions,
        )
        opened.pop_all()
        return LoadedPack(pack.manifest, service, analyzer, parts.keeper, parts.audit(threshold))
