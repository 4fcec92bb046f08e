"""Work beside the requests: it comes again after a failure, and ends with the service."""

from __future__ import annotations

import threading
from typing import Any

from faceward.api.periodic import Periodic, Stop
from faceward.errors import FacewardError
from searching import at_last


def test_it_comes_again_after_a_failure_which_is_told() -> None:
    times: list[int] = []
    said: list[tuple[str, dict[str, Any]]] = []

    def work(stop: Stop) -> None:
        assert not stop()
        times.append(len(times))
        if len(times) == 1:
            raise FacewardError("away")

    periodic = Periodic("one that fails once", work, lambda event, **more: said.append((event, more)), seconds=0.01)
    periodic.start()
    at_last(lambda: len(times) >= 3)
    periodic.close()
    assert said == [("one that fails once", {"level": "warning", "error": "faceward_error"})]
    assert not [thread for thread in threading.enumerate() if thread.name == "faceward-one-that-fails-once"]


def test_what_is_under_way_hears_of_the_end_and_ends_first() -> None:
    began, heard = threading.Event(), threading.Event()

    def work(stop: Stop) -> None:
        began.set()
        at_last(stop)
        heard.set()

    periodic = Periodic("purge", work, lambda *_, **__: None, seconds=3600.0, first=0.01)
    periodic.start()
    assert began.wait(60)
    periodic.close()
    assert heard.is_set()


def test_zero_seconds_are_never() -> None:
    periodic = Periodic("never done", lambda _: None, lambda *_, **__: None, seconds=0.0)
    periodic.start()
    assert not [thread for thread in threading.enumerate() if thread.name == "faceward-never-done"]
    periodic.close()
