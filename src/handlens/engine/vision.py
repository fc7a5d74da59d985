"""The vision half on ONNX Runtime: one slice in, its visual tokens out.

Boundary: ``vision.onnx`` and numpy; positions come from ``core/patches.py``, as in training.
"""

from pathlib import Path

import numpy as np
import onnxruntime
from jaxtyping import Float32

from handlens.config import HandlensConfig
from handlens.engine.cores import count_free_cores
from handlens.engine.inputs import slice_inputs
from handlens.engine.say import say_once
from handlens.errors import ModelError, SettingError, did_you_mean

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
"""Names a user can ask for."""


class OnnxVision:
    """Runs ``vision.onnx``; any number of patches, one slice at a time.

    A provider that fails when it computes is left for the processor, and that is said once.

    Raises:
        SettingError: the provider is unknown or not part of the installed onnxruntime.
        ModelError: the file cannot be read, or it makes visual tokens of another shape.
    """

    def __init__(
        self, file: Path, config: HandlensConfig, *, provider: str = "cpu", threads: int | None = None
    ) -> None:
        self.config = config
        self.provider = provider
        self._file, self._threads = file, threads or count_free_cores()
        self._session: onnxruntime.InferenceSession | None = open_session(file, provider, self._threads)
        self._check_shape()

    def encode(self, pixels: Float32[np.ndarray, "3 height width"]) -> Float32[np.ndarray, "queries dim"]:
        """Return the visual tokens of one slice."""
        assert self._session is not None, "encode() after close()"
        patches, positions, keys = slice_inputs(pixels, self.config)
        feeds = {"patches": patches, "position_ids": positions, "key_positions": keys}
        try:
            (visual_tokens,) = self._session.run(["visual_tokens"], feeds)
        except Exception as cause:  # the library raises many kinds
            if self.provider == "cpu":
                raise ModelError(f"{self._file} cannot be computed: {_first_line(cause)}") from None
            say_once(f"provider '{self.provider}' failed ({_first_line(cause)}); going on with 'cpu'")
            self.provider, self._session = "cpu", open_session(self._file, "cpu", self._threads)
            (visual_tokens,) = self._session.run(["visual_tokens"], feeds)
        return visual_tokens

    def close(self) -> None:
        """Release the weights."""
        self._session = None

    def _check_shape(self) -> None:
        """Compare what the graph makes with what the language half takes."""
        assert self._session is not None
        found = self._session.get_outputs()[0].shape
        expected = (self.config.resampler.num_queries, self.config.resampler.width)
        if any(isinstance(side, int) and side != want for side, want in zip(found, expected, strict=False)):
            raise ModelError(
                f"{self._file} makes {found[0]} visual tokens of width {found[1]}, the manifest says {expected[0]} of "
                f"{expected[1]}; these halves do not belong together; export the bundle again"
            )


def open_session(file: Path, provider: str, threads: int) -> onnxruntime.InferenceSession:
    """Return a session that does not spin while it waits.

    Raises:
        SettingError: the provider is unknown or not part of the installed onnxruntime.
        ModelError: the file cannot be read.
    """
    if provider not in PROVIDERS:
        raise SettingError(f"unknown provider '{provider}'{did_you_mean(provider, PROVIDERS)}")
    available = onnxruntime.get_available_providers()
    if PROVIDERS[provider] not in available:
        here = [name for name, full in PROVIDERS.items() if full in available]
        raise SettingError(f"provider '{provider}' is not in the installed onnxruntime; available: {', '.join(here)}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    chain = list(dict.fromkeys([PROVIDERS[provider], PROVIDERS["cpu"]]))
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=chain)
    except Exception as cause:  # the library raises many kinds
        if provider != "cpu":
            say_once(f"provider '{provider}' cannot load {file.name} ({_first_line(cause)}); going on with 'cpu'")
            return open_session(file, "cpu", threads)
        raise ModelError(f"cannot run {file}: {_first_line(cause)}; export the bundle again") from None


def available_providers() -> list[str]:
    """Return the providers of the installed onnxruntime by the names a user can ask for."""
    found = onnxruntime.get_available_providers()
    return [name for name, full in PROVIDERS.items() if full in found]


def _first_line(cause: Exception) -> str:
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
