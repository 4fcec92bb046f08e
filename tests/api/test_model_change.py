"""`faceward serve` goes on recognising while the model of its gallery is changed, and changed back, by another process."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
from served import Served

from faceward.factory import open_reembedding
from faceward.settings import load_settings
from faceward.vision import ModelPack
from other_packs import add_pack, home_with
from searching import at_last


def test_no_request_fails_while_the_model_is_changed(
    database_url: str, home: Path, pack: ModelPack, photos: dict[str, Path], tmp_path: Path
) -> None:
    own = home_with(home, pack, tmp_path / "home")
    model = add_pack(own, pack, "narrow-1", 256)
    settings = load_settings(home=own, database={"url": database_url}, images={"store": "original"})
    environment = {
        "FACEWARD_HOME": str(own),
        "FACEWARD_DATABASE__URL": database_url,
        "FACEWARD_IMAGES__STORE": "original",
    }
    probe = photos["obama3.jpg"].read_bytes()
    with (
        Served(environment=environment) as served,
        httpx.Client(base_url=served.url, headers={"x-api-key": served.first_key}, timeout=60) as client,
    ):
        for name in ("obama.jpg", "biden.jpg"):
            made = client.post(
                "/v1/persons", data={"name": name, "region": "A"}, files={"images": photos[name].read_bytes()}
            )
            assert made.status_code == 201, made.text
        stop, answers = threading.Event(), list[tuple[int, str | None, float]]()

        def recognise() -> None:
            while not stop.wait(0.02):
                answer = client.post("/v1/recognize", data={"region": "A"}, files={"image": probe})
                match = answer.json()["faces"][0]["match"] if answer.status_code == 200 else None
                answers.append((answer.status_code, match and match["name"], match and match["similarity"]))

        def more() -> None:
            seen = len(answers)
            at_last(lambda: len(answers) > seen + 6)

        threads = [threading.Thread(target=recognise) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            more()
            with open_reembedding(settings) as parts:
                parts.change.begin(model, 256)
                parts.change.fill()
                parts.change.cut_over()
                more()
                assert client.get("/readyz").json()["ready"]
                parts.change.roll_back()
                more()
                more()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert {(status, name) for status, name, _ in answers} == {(200, "obama.jpg")}
        first, last = answers[0][2], answers[-1][2]
        assert first == last
        assert len({similarity for *_, similarity in answers}) == 2
