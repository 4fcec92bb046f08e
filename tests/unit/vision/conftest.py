"""A web server on this machine, for real downloads without a network, and images with faces at known places."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from archives import Site
from scenes import Image, Scene, overlap

from faceward.types import Box
from faceward.vision.analyzer import FaceAnalyzer


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            body = site.pages.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if self.path in site.cut else body)

        def log_message(self, format: str, *args: Any) -> None:
            return None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.base = f"http://127.0.0.1:{server.server_address[1]}/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield site
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def scene(analyzer: FaceAnalyzer, photos: dict[str, Path]) -> Scene:
    """Pastes the faces of three people, in turn, on a plain background with a little noise."""
    heads = []
    for name in ("obama.jpg", "biden.jpg", "astronaut.png"):
        pixels = analyzer.decode(photos[name]).pixels
        box = analyzer.analyze(pixels)[0].box
        left, top = round(box.left - 0.4 * box.width), round(box.top - 0.2 * box.height)
        head = pixels[max(0, top) : round(box.bottom + 0.2 * box.height), left : round(box.right + 0.4 * box.width)]
        heads.append((head, box.left - left, box.top - max(0, top), box.width, box.height))

    def compose(width: int, height: int, sizes: Sequence[float]) -> tuple[Image, list[Box]]:
        rng = np.random.default_rng(7)
        canvas = (110 + rng.integers(-4, 5, (height, width, 1))).astype(np.uint8).repeat(3, axis=2)
        boxes, taken = [], []
        for index, size in enumerate(sizes):
            head, x, y, face_width, face_height = heads[index % len(heads)]
            scale = size / face_height
            small = np.asarray(cv2.resize(head, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
            rows, columns = small.shape[:2]
            while True:
                left, top = int(rng.integers(0, width - columns)), int(rng.integers(0, height - rows))
                place = Box(left, top, left + columns, top + rows)
                if not any(overlap(place, other) > 0 for other in taken):
                    break
            taken.append(place)
            canvas[top : top + rows, left : left + columns] = small
            corner = (left + x * scale, top + y * scale)
            boxes.append(Box(*corner, corner[0] + face_width * scale, corner[1] + size))
        return canvas, boxes

    return compose
