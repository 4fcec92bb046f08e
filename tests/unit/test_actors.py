"""Who is at work, in this thread and no other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest

from faceward.actors import MAX_ACTOR, acting_as, current_actor


def test_an_actor_lasts_as_long_as_its_block() -> None:
    assert current_actor() == "python"
    with acting_as("cli:alice"):
        with acting_as("import:7"):
            assert current_actor() == "import:7"
        assert current_actor() == "cli:alice"
    assert current_actor() == "python"


def test_an_error_ends_it_too() -> None:
    with pytest.raises(ZeroDivisionError), acting_as("cli:alice"):
        _ = 1 / 0
    assert current_actor() == "python"


def test_another_thread_is_told_by_a_copy_of_the_context() -> None:
    with ThreadPoolExecutor(1) as pool, acting_as("import:7"):
        assert pool.submit(current_actor).result() == "python"
        assert pool.submit(copy_context().run, current_actor).result() == "import:7"


def test_a_name_too_long_for_the_log_is_cut() -> None:
    with acting_as("cli:" + "x" * 1000):
        assert len(current_actor()) == MAX_ACTOR
