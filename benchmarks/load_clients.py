"""HTTP clients in a process of their own: so many connections, each of which sends its next request after the last answer.

As bare as a real client can be, so that the cores are left to what is measured: bytes on a socket, and of the answer the
status, the length and Retry-After. Prints JSON: the seconds of each answer by status, and what went wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

BOUNDARY = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"


def form(fields: dict[str, str], image: bytes) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="p.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return "".join(parts).encode() + head.encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()


def request(host: str, key: str, path: str, body: bytes) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nx-api-key: {key}\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
    ).encode() + body


class Load:
    """answered: seconds of each answer by its status, of those that came from `since` to `until`; beside: of the others, at the
    rise of the load and at its end. lost: requests that got none, by the error.
    """

    def __init__(self, host: str, port: int, requests: list[bytes], since: float, until: float) -> None:
        self._address = host, port
        self._requests = requests
        self._since = since
        self._until = until
        self.answered: dict[int, list[float]] = {}
        self.beside: dict[int, list[float]] = {}
        self.lost: Counter[str] = Counter()
        self.sent = 0

    async def client(self, number: int) -> None:
        dice = random.Random(number)
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while time.monotonic() < self._until:
                if streams is None:
                    streams = await asyncio.open_connection(*self._address)
                start = time.monotonic()
                self.sent += 1
                try:
                    status, retry_after = await self._exchange(streams, dice.choice(self._requests))
                except (OSError, asyncio.IncompleteReadError) as exc:
                    self.lost[type(exc).__name__] += 1
                    streams[1].close()
                    streams = None
                    continue
                now = time.monotonic()
                kept = self.answered if self._since <= now <= self._until else self.beside
                kept.setdefault(status, []).append(now - start)
                if retry_after:
                    await asyncio.sleep(min(retry_after, max(0.0, self._until - time.monotonic())))
        finally:
            if streams is not None:
                streams[1].close()

    async def _exchange(
        self, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], sent: bytes
    ) -> tuple[int, float]:
        reader, writer = streams
        writer.write(sent)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(_header(head, b"content-length") or 0))
        return int(head[9:12]), float(_header(head, b"retry-after") or 0)


def _header(head: bytes, name: bytes) -> bytes | None:
    _, found, after = head.partition(b"\r\n" + name + b":")
    return after.partition(b"\r\n")[0].strip() if found else None


async def run(arguments: argparse.Namespace) -> dict[str, object]:
    url = urlsplit(arguments.url)
    fields = {"region": arguments.region, "max_faces": "1", "top_k": "1"}
    requests = [
        request(url.netloc, arguments.key, "/v1/recognize", form(fields, photo.read_bytes()))
        for photo in sorted(arguments.photos.glob("*.jpg"))
    ]
    start = time.monotonic()
    since, until = start + arguments.rise, start + arguments.rise + arguments.seconds
    load = Load(url.hostname or "", url.port or 80, requests, since, until)
    await asyncio.gather(*(load.client(number) for number in range(arguments.connections)))
    return {
        "sent": load.sent,
        "answered": load.answered,
        "beside": load.beside,
        "lost": load.lost,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--region", required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--rise", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    json.dump(asyncio.run(run(parser.parse_args())), sys.stdout)


if __name__ == "__main__":
    main()
