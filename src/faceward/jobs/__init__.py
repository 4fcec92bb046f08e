"""Imports that run in the background: their uploads, their readers, and the worker that runs them."""
