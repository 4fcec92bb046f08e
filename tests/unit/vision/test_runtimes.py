from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_onnx import write_mean_model

from faceward.errors import InvalidValueError, PackDamagedError, RuntimeUnavailableError
from faceward.vision.model_packs import ModelPack
from faceward.vision.runtimes import InferenceSession, available_runtimes, choose_runtime, open_session

RUNTIMES = available_runtimes()


def inputs(count: int) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    return list(np.random.default_rng(1).random((count, 1, 1, 64, 64), np.float32))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_shapes_and_results(runtime: str, pack: ModelPack) -> None:
    session = open_session(pack.landmarks, runtime=runtime)
    assert session.runtime == runtime
    assert session.input_shape == (1, 1, 64, 64)
    assert session.output_shapes == ((1, 136),)
    (output,) = session.run(inputs(1)[0])
    assert output.shape == (1, 136)
    assert output.dtype == np.float32


def test_the_runtimes_agree(pack: ModelPack) -> None:
    for path, shape in (
        (pack.detector, (1, 3, 240, 320)),
        (pack.landmarks, (1, 1, 64, 64)),
        (pack.embedder, (1, 3, 112, 112)),
    ):
        data = np.random.default_rng(2).random(shape, np.float32)
        results = [open_session(path, runtime=runtime).run(data) for runtime in RUNTIMES]
        for outputs in zip(*results, strict=True):
            assert all(np.allclose(outputs[0], output, atol=2e-3) for output in outputs)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_result_belongs_to_its_caller(runtime: str, pack: ModelPack) -> None:
    session = open_session(pack.landmarks, runtime=runtime)
    one, other = inputs(2)
    (first,) = session.run(one)
    kept = first.copy()
    (second,) = session.run(other)
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("slots", [1, 3])
def test_threads_never_get_the_result_of_another(runtime: str, slots: int, pack: ModelPack) -> None:
    session = open_session(pack.landmarks, runtime=runtime, threads=slots)
    data = inputs(16)
    expected = [session.run(one)[0] for one in data]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            for found, wanted in zip(pool.map(lambda one: session.run(one)[0], data), expected, strict=True):
                assert np.allclose(found, wanted, atol=1e-5)


_LOADED_AT_ONCE = """
import sys, threading
from pathlib import Path
from faceward.vision import runtimes

sys.setswitchinterval(1e-6)  # threads take turns at the worst of moments
compiled, compile = threading.Barrier(4), runtimes._compile

def together(*given):
    model = compile(*given)
    compiled.wait()
    return model

runtimes._compile = together
load = lambda: runtimes.open_session(Path(sys.argv[1]), runtime="openvino")
threads = [threading.Thread(target=load, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_the_first_models_of_a_process_may_be_loaded_at_once(tmp_path: Path) -> None:
    path = write_mean_model(tmp_path / "mean.onnx", (1, 3, 4, 4), (2, 3), (1, 3))
    loading = [sys.executable, "-c", _LOADED_AT_ONCE, str(path)]
    assert subprocess.run(loading, timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_any_batch(runtime: str, tmp_path: Path) -> None:
    session = open_session(write_mean_model(tmp_path / "m.onnx", (None, 3, 8, 8), (2, 3), (None, 3)), runtime=runtime)
    assert session.input_shape == (None, 3, 8, 8)
    assert session.output_shapes == ((None, 3),)
    data = np.random.default_rng(3).random((5, 3, 8, 8), np.float32)
    assert np.allclose(session.run(data)[0], data.mean(axis=(2, 3)), atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_closed_session_says_so(runtime: str, pack: ModelPack) -> None:
    session = open_session(pack.landmarks, runtime=runtime, threads=2)
    session.close()
    session.close()
    with pytest.raises(RuntimeUnavailableError, match="closed"):
        session.run(inputs(1)[0])


def test_close_waits_for_the_calls_under_way(pack: ModelPack) -> None:
    session = open_session(pack.embedder, threads=2)
    data = np.zeros((1, 3, 112, 112), np.float32)
    outcomes: list[object] = []
    started = threading.Barrier(4)

    def work() -> None:
        started.wait()
        for _ in range(20):
            try:
                outcomes.append(session.run(data)[0].shape)
            except RuntimeUnavailableError:
                outcomes.append("closed")

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    closers = [threading.Thread(target=session.close) for _ in range(3)]
    started.wait()
    for thread in closers:
        thread.start()
    for thread in (*closers, *threads):
        thread.join()
    assert len(outcomes) == 60
    assert set(outcomes) <= {(1, 512), "closed"}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("content", [b"", b"this is no model", bytes(1000)])
def test_a_file_that_is_no_model(runtime: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(PackDamagedError, match=r"model\.onnx can't be loaded"):
        open_session(path, runtime=runtime)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for runtime in RUNTIMES:
        with pytest.raises(PackDamagedError, match=r"gone\.onnx can't be loaded"):
            open_session(tmp_path / "gone.onnx", runtime=runtime, cache_dir=tmp_path)


def test_values_outside_their_limits(pack: ModelPack) -> None:
    refused: list[Callable[[], InferenceSession]] = [
        lambda: open_session(pack.landmarks, runtime="tensorrt"),
        lambda: open_session(pack.landmarks, threads=0),
        lambda: open_session(pack.landmarks, threads=True),
        lambda: open_session(pack.landmarks, precision="int4"),
        lambda: open_session(pack.landmarks, runtime="onnxruntime", precision="bf16"),
    ]
    for attempt in refused:
        with pytest.raises(InvalidValueError):
            attempt()


def test_the_runtime_that_is_installed_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_runtime("auto") == RUNTIMES[0]
    monkeypatch.setitem(sys.modules, "openvino", None)  # as Python itself marks a module that must not be imported
    assert choose_runtime("auto") == "onnxruntime"
    with pytest.raises(RuntimeUnavailableError, match="pip install openvino"):
        choose_runtime("openvino")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeUnavailableError, match="No inference runtime is installed"):
        choose_runtime("auto")


openvino_only = pytest.mark.skipif("openvino" not in RUNTIMES, reason="OpenVINO is not installed")


@openvino_only
def test_a_compiled_model_is_kept_and_used(pack: ModelPack, tmp_path: Path) -> None:
    data = inputs(1)[0]
    (expected,) = open_session(pack.landmarks, runtime="openvino").run(data)
    (compiled,) = open_session(pack.landmarks, runtime="openvino", cache_dir=tmp_path / "c").run(data)
    (blob,) = (tmp_path / "c").iterdir()
    written = blob.stat().st_mtime_ns
    (imported,) = open_session(pack.landmarks, runtime="openvino", cache_dir=tmp_path / "c").run(data)
    assert np.allclose(compiled, expected, atol=1e-6)
    assert np.allclose(imported, expected, atol=1e-6)
    assert blob.stat().st_mtime_ns == written
    open_session(pack.landmarks, runtime="openvino", cache_dir=tmp_path / "c", threads=2)
    assert len(list((tmp_path / "c").iterdir())) == 2


@openvino_only
@pytest.mark.parametrize("damage", ["empty", "half", "other bytes", "another content"])
def test_a_damaged_compiled_model_is_made_anew(damage: str, pack: ModelPack, tmp_path: Path) -> None:
    open_session(pack.landmarks, runtime="openvino", cache_dir=tmp_path)
    (blob,) = tmp_path.iterdir()
    good = blob.read_bytes()
    foreign = b"not what OpenVINO exported"
    blob.write_bytes(
        {
            "empty": b"",
            "half": good[: len(good) // 2],
            "other bytes": good[:1000] + bytes(1000) + good[2000:],
            "another content": hashlib.sha256(foreign).digest() + foreign,
        }[damage]
    )
    assert open_session(pack.landmarks, runtime="openvino", cache_dir=tmp_path).run(inputs(1)[0])[0].shape == (1, 136)
    assert len(blob.read_bytes()) > len(good) // 2
    assert hashlib.sha256(blob.read_bytes()[32:]).digest() == blob.read_bytes()[:32]


@openvino_only
def test_a_cache_that_can_not_be_written_costs_nothing_else(pack: ModelPack, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    session = open_session(pack.landmarks, runtime="openvino", cache_dir=tmp_path / "file")
    assert session.run(inputs(1)[0])[0].shape == (1, 136)
