"""Which strategy answers a search, with how many candidates, and how the sketches stay fresh."""

from faceward.retrieval.freshness import KeeperSettings, Scope, SketchKeeper
from faceward.retrieval.retriever import RetrievalSettings, Retriever

__all__ = ["KeeperSettings", "RetrievalSettings", "Retriever", "Scope", "SketchKeeper"]
