"""The vision half on ONNX Runtime: one slice in, its visual tokens out.

Boundary: ``vision.onnx`` and numpy; positions come from ``core/patches.py``, as in training.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from jaxtyping import Float32

from handlens.config import HandlensConfig
from handlens.engine import signed_weights
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
PLUGINS = {"qnn": "onnxruntime_qnn"}
"""Providers that come as a package beside onnxruntime, and its import name."""
OUT_OF_MEMORY = ("bad_alloc", "Failed to allocate memory")
"""What onnxruntime says when memory is at its end."""
_registered: set[str] = set()


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
                raise _failure(self._file, f"{self._file} cannot be computed: {_first_line(cause)}") from None
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


def open_session(
    file: Path, provider: str, threads: int, more: Mapping[str, str] | None = None
) -> onnxruntime.InferenceSession:
    """Return a session that does not spin while it waits; ``more`` are options of the provider.

    Raises:
        SettingError: the provider is unknown or not part of the installed onnxruntime.
        ModelError: the file cannot be read.
    """
    if provider not in PROVIDERS:
        raise SettingError(f"unknown provider '{provider}'{did_you_mean(provider, PROVIDERS)}")
    available = onnxruntime.get_available_providers()
    devices = [] if PROVIDERS[provider] in available else plugin_devices(provider)
    if PROVIDERS[provider] not in available and not devices:
        here = [name for name, full in PROVIDERS.items() if full in available]
        raise SettingError(f"provider '{provider}' is not in the installed onnxruntime; available: {', '.join(here)}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised, and said by us
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    chain: list[Any] = list(dict.fromkeys([PROVIDERS[provider], PROVIDERS["cpu"]]))
    try:
        if devices:
            options.add_provider_for_devices(devices, plugin_options(provider) | dict(more or {}))
            return onnxruntime.InferenceSession(str(file), options)
        chain[0] = (chain[0], dict(more or {}))
        if provider == "cpu" and signed_weights.pays_here() and (signed := signed_weights.read_signed(file)):
            return _open_signed(signed, file, options, chain)
        return onnxruntime.InferenceSession(str(file), options, providers=chain)
    except Exception as cause:  # the library raises many kinds
        if provider != "cpu":
            say_once(f"provider '{provider}' cannot load {file.name} ({_first_line(cause)}); going on with 'cpu'")
            return open_session(file, "cpu", threads)
        raise _failure(file, f"cannot run {file}: {_first_line(cause)}; export the bundle again") from None


def _open_signed(
    signed: signed_weights.Signed, file: Path, options: onnxruntime.SessionOptions, chain: list[Any]
) -> onnxruntime.InferenceSession:
    """Return a session on the signed form of a graph."""
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(file.parent))
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in signed.beside.values()]
    if values:
        options.add_external_initializers(list(signed.beside), values)
    return onnxruntime.InferenceSession(signed.graph, options, providers=chain)


def available_providers() -> list[str]:
    """Return the providers of the installed onnxruntime by the names a user can ask for."""
    found = onnxruntime.get_available_providers()
    return [name for name, full in PROVIDERS.items() if full in found or _has_plugin(name)]


def _has_plugin(provider: str) -> bool:
    return provider in PLUGINS and importlib.util.find_spec(PLUGINS[provider]) is not None


def plugin_devices(provider: str) -> list[Any]:
    """Return the devices of a provider that comes as a package of its own; none where it is not installed."""
    if not _has_plugin(provider):
        return []
    plugin = importlib.import_module(PLUGINS[provider])
    if PROVIDERS[provider] not in _registered:
        onnxruntime.register_execution_provider_library(PROVIDERS[provider], plugin.get_library_path())
        _registered.add(PROVIDERS[provider])
    found = [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDERS[provider]]
    return found[:1]


def plugin_options(provider: str) -> dict[str, str]:
    """Return what a provider of a package of its own must be told: which of its libraries to use."""
    if provider != "qnn":
        return {}
    return {"backend_path": str(importlib.import_module(PLUGINS["qnn"]).get_qnn_htp_path())}


def _failure(file: Path, told: str) -> ModelError:
    if any(mark in told for mark in OUT_OF_MEMORY):
        return ModelError(
            f"there is too little memory for the vision half {file}; close other programs, or take smaller weights "
            "(handlens export --vision int8); `handlens plan` says what each phase needs"
        )
    return ModelError(told)


def _first_line(cause: Exception) -> str:
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
