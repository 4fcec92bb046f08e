"""One protocol for neural networks, with OpenVINO and ONNX Runtime behind it.

A session is safe to share between threads: `threads` calls run at once, each on one core and with buffers of its own;
further calls wait. One core a call is the better use of a machine for networks this small: on two cores, one call with
two threads is slower than with one, and two calls at once are nearly twice as fast.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from faceward.errors import InvalidValueError, PackDamagedError, RuntimeUnavailableError
from faceward.vision.files import write_atomically

RuntimeName: TypeAlias = Literal["auto", "openvino", "onnxruntime"]
Precision: TypeAlias = Literal["f32", "bf16"]
Shape: TypeAlias = tuple[int | None, ...]
"""None where any length will do."""

_RUNTIMES = ("openvino", "onnxruntime")
"""The preferred one first: OpenVINO takes 3.1 ms for the default embedding where ONNX Runtime takes 7.9."""

_FIRST_LOOKUP = threading.Lock()
"""OpenVINO makes its table of types with the first look-up; two threads that do so at once, in a first inference or while a
pack's models are loaded side by side, wait for each other for ever, one with Python's lock and one with the table's.
"""


class InferenceSession(Protocol):
    """A network with one input."""

    @property
    def runtime(self) -> str:
        """Name of the runtime."""

    @property
    def input_shape(self) -> Shape:
        """Shape of the input."""

    @property
    def output_shapes(self) -> tuple[Shape, ...]:
        """Shapes of the outputs, in the model's order."""

    def run(self, array: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return the outputs for one C-contiguous input, in the model's order. The arrays belong to the caller."""

    def close(self) -> None:
        """Wait for the calls under way, then give the memory back. Closing twice does nothing."""


def available_runtimes() -> tuple[str, ...]:
    """The names of the installed runtimes, the preferred one first."""
    return tuple(name for name in _RUNTIMES if importlib.util.find_spec(name) is not None)


def choose_runtime(runtime: str = "auto") -> str:
    """Return the runtime to use. Raises RuntimeUnavailableError, or InvalidValueError for an unknown name."""
    if runtime != "auto" and runtime not in _RUNTIMES:
        raise InvalidValueError("runtime", runtime, f"one of auto, {', '.join(_RUNTIMES)}")
    installed = available_runtimes()
    if runtime == "auto" and installed:
        return installed[0]
    if runtime in installed:
        return runtime
    if runtime == "auto":
        raise RuntimeUnavailableError(
            "No inference runtime is installed. Install one: pip install openvino, or pip install onnxruntime"
        )
    raise RuntimeUnavailableError(
        f"The inference runtime {runtime} is not installed. Install it: pip install {runtime}, or ask for another one."
    )


def open_session(
    path: Path,
    *,
    runtime: RuntimeName | str = "auto",
    threads: int = 1,
    precision: Precision | str = "f32",
    cache_dir: Path | None = None,
) -> InferenceSession:
    """Load an ONNX model.

    threads: how many calls may run at once, each on one core. precision: "bf16" is faster on processors that have it,
    at a slight loss of accuracy; OpenVINO only. cache_dir: where compiled models are kept (OpenVINO), which shortens
    the start of a process. Raises RuntimeUnavailableError, PackDamagedError for a file that is no model, InvalidValueError.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise InvalidValueError("threads", threads, "a whole number from 1 to 1024")
    if precision not in ("f32", "bf16"):
        raise InvalidValueError("precision", precision, "f32 or bf16")
    if choose_runtime(runtime) == "openvino":
        return OpenVinoSession(path, threads=threads, precision=precision, cache_dir=cache_dir)
    if precision != "f32":
        raise InvalidValueError("precision", precision, "f32 where the runtime is onnxruntime")
    return OnnxRuntimeSession(path, threads=threads)


class _Slots:
    """A fixed number of things, each used by one call at a time."""

    def __init__(self, things: list[Any]) -> None:
        self._free: queue.LifoQueue[Any] = queue.LifoQueue()
        self._count = len(things)
        self._closing = threading.Lock()
        for thing in things:
            self._free.put(thing)

    @contextmanager
    def one(self) -> Iterator[Any]:
        thing = self._free.get()
        try:
            if thing is None:
                raise RuntimeUnavailableError("This inference session is closed. Open a new FaceAnalyzer.")
            yield thing
        finally:
            self._free.put(thing)

    def close(self) -> None:
        with self._closing:  # two that close at once would each hold a part and wait for the rest
            for _ in range(self._count):
                self._free.get()
            for _ in range(self._count):
                self._free.put(None)


class OpenVinoSession:
    """A model compiled by OpenVINO for the processor at hand."""

    runtime = "openvino"

    def __init__(self, path: Path, *, threads: int = 1, precision: str = "f32", cache_dir: Path | None = None) -> None:
        openvino = importlib.import_module("openvino")
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
        }
        model = _compile(openvino, path, options, cache_dir)
        with _FIRST_LOOKUP:
            model.inputs[0].element_type.to_dtype()
        self.input_shape = _openvino_shape(model.inputs[0].partial_shape)
        self.output_shapes = tuple(_openvino_shape(output.partial_shape) for output in model.outputs)
        self._slots = _Slots([model.create_infer_request() for _ in range(threads)])

    def run(self, array: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        with self._slots.one() as request:
            request.infer({0: array}, share_inputs=True, share_outputs=True)
            # Copied before the slot is given back: the next call writes into the same buffers.
            return [np.array(tensor.data, dtype=np.float32) for tensor in request.output_tensors]

    def close(self) -> None:
        self._slots.close()


class OnnxRuntimeSession:
    """A model run by ONNX Runtime on the processor."""

    runtime = "onnxruntime"

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        onnxruntime = importlib.import_module("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # ONNX Runtime has a dozen errors and no class above them.
        native = vars(importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")).values()
        errors = tuple(kind for kind in native if isinstance(kind, type) and issubclass(kind, Exception))
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except errors as exc:
            raise _not_a_model(path, exc) from exc
        self._input = session.get_inputs()[0].name
        self.input_shape = _onnx_shape(session.get_inputs()[0].shape)
        self.output_shapes = tuple(_onnx_shape(output.shape) for output in session.get_outputs())
        self._slots = _Slots([session] * threads)

    def run(self, array: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        with self._slots.one() as session:
            return list(session.run(None, {self._input: array}))

    def close(self) -> None:
        self._slots.close()


def _compile(openvino: Any, path: Path, options: dict[str, Any], cache_dir: Path | None) -> Any:
    core = openvino.Core()
    if cache_dir is None:
        return _compile_onnx(core, path, options)
    device = core.get_property("CPU", "FULL_DEVICE_NAME")
    abilities = sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    key = hashlib.sha256(repr((openvino.__version__, device, abilities, sorted(options.items()))).encode())
    try:
        key.update(path.read_bytes())
    except OSError as exc:
        raise _not_a_model(path, exc) from exc
    blob = cache_dir / f"{path.stem}-{key.hexdigest()[:32]}.blob"
    kept = _read_blob(blob)
    if kept is not None:
        with suppress(
            RuntimeError
        ):  # OpenVINO's only error type; the model is then compiled anew and the blob replaced
            return core.import_model(kept, "CPU", options)
    model = _compile_onnx(core, path, options)
    exported = model.export_model().getvalue()
    with suppress(OSError):  # a full or read-only disk costs the shorter start, nothing else
        write_atomically(blob, (hashlib.sha256(exported).digest(), exported))
    return model


def _compile_onnx(core: Any, path: Path, options: dict[str, Any]) -> Any:
    try:
        return core.compile_model(path, "CPU", options)
    except RuntimeError as exc:
        raise _not_a_model(path, exc) from exc


def _read_blob(blob: Path) -> bytes | None:
    """A compiled model that was written whole, or None: OpenVINO may crash on a damaged one."""
    try:
        data = blob.read_bytes()
    except OSError:
        return None
    return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None


def _not_a_model(path: Path, exc: Exception) -> PackDamagedError:
    reason = next((line for line in reversed(str(exc).splitlines()) if line.strip()), type(exc).__name__)
    return PackDamagedError(f"{path} can't be loaded as an ONNX model: {reason.strip()}")


def _openvino_shape(shape: Any) -> Shape:
    return tuple(int(part.get_length()) if part.is_static else None for part in shape)


def _onnx_shape(shape: list[Any]) -> Shape:
    return tuple(part if isinstance(part, int) else None for part in shape)
