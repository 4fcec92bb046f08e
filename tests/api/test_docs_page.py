"""The page that shows the document runs nothing but what it names by a hash."""

from __future__ import annotations

import base64
import hashlib
import re

import httpx
from companies import RunningServer


def test_the_page_runs_what_it_names_by_a_hash(running: RunningServer) -> None:
    docs = httpx.get(f"{running.url}/docs")
    assert docs.status_code == 200
    assert "openapi.json" in docs.text
    foreign = re.findall('(?:src|rel="stylesheet" href)="https:', docs.text)
    assert len(foreign) == docs.text.count('integrity="sha384-') == 2
    (own,) = re.findall(r"<script>(.*?)</script>", docs.text)
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    policy = docs.headers["content-security-policy"]
    assert f"'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy.partition("style-src")[0]
