"""Imports of many persons at once, as background jobs."""

from fastapi import APIRouter

router = APIRouter(tags=["imports"])
