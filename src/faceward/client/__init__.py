"""A typed client of the REST API."""

from faceward.client.client import Client

__all__ = ["Client"]
