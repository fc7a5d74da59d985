"""The vision half in buckets of one fixed shape, as neural processors want it.

Boundary: a bucket that ``export/npu.py`` wrote, and the graph of any shape for slices that do not fit.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from jaxtyping import Float32

from handlens.config import HandlensConfig
from handlens.engine.inputs import slice_inputs
from handlens.engine.vision import OnnxVision, open_session, plugin_devices, plugin_options
from handlens.errors import ModelError, SettingError

POSITIONS = "vpm.embeddings.position_embedding"
"""The node of the graph that looks positions up, and the input of a bucket in its place."""
HIDDEN = -40.0
"""Added to the scores of patches that fill the bucket up: small enough to be nothing after the softmax, and near enough
for the range of 16 bits."""


def bucket_files(folder: Path, patches: int) -> tuple[Path, Path]:
    """Return the graph and the table of positions of a bucket."""
    return folder / f"vision-npu-{patches}.onnx", folder / f"vision-npu-{patches}.npy"


def bucket_feeds(
    feeds: Mapping[str, np.ndarray], table: Float32[np.ndarray, "_rows _width"], patches: int
) -> dict[str, np.ndarray]:
    """Return the inputs of a bucket from those of the graph of any shape."""
    num_real = len(feeds["patches"])
    rows = {
        "patches": feeds["patches"],
        POSITIONS: table[feeds["position_ids"]],
        "key_positions": feeds["key_positions"],
    }
    filled = {name: np.zeros((patches, values.shape[1]), dtype=np.float32) for name, values in rows.items()}
    for name, values in rows.items():
        filled[name][:num_real] = values
    mask = np.zeros((1, 1, patches), dtype=np.float32)
    mask[..., num_real:] = HIDDEN
    return filled | {"mask": mask}


class BucketVision:
    """Encodes slices in a bucket on one provider; a slice that is too large goes to the graph of any shape.

    Raises:
        ModelError: a file of the bucket is missing or damaged.
        SettingError: the provider is unknown or not installed.
    """

    def __init__(
        self,
        bucket: Path,
        any_shape: Path,
        config: HandlensConfig,
        *,
        provider: str = "qnn",
        threads: int = 1,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.config, self._any_shape, self._threads = config, any_shape, threads
        try:
            self._patches = int(bucket.stem.rpartition("-")[2])
            self._table = np.load(bucket.with_suffix(".npy"))
        except (OSError, ValueError) as cause:
            raise ModelError(f"{bucket} is no whole bucket ({cause}); write it again with `handlens npu`") from None
        self._session = open_session(bucket, provider, threads, options)
        self._rest: OnnxVision | None = None
        self.num_outside = 0
        """Slices that did not fit."""

    def encode(self, pixels: Float32[np.ndarray, "3 height width"]) -> Float32[np.ndarray, "queries dim"]:
        """Return the visual tokens of one slice."""
        patches, positions, keys = slice_inputs(pixels, self.config)
        if len(patches) > self._patches:
            self.num_outside += 1
            self._rest = self._rest or OnnxVision(self._any_shape, self.config, threads=self._threads)
            return self._rest.encode(pixels)
        feeds = {"patches": patches, "position_ids": positions, "key_positions": keys}
        (visual_tokens,) = self._session.run(["visual_tokens"], bucket_feeds(feeds, self._table, self._patches))
        return visual_tokens

    def close(self) -> None:
        """Release the weights."""
        self._session = self._rest = None


def write_context(bucket: Path, out: Path, *, soc_model: int, htp_arch: int) -> Path:
    """Compile a bucket for one Snapdragon and write the result, ready to be loaded there; nothing is run.

    Args:
        bucket: the graph.
        out: the small graph that names the binary beside it.
        soc_model: Qualcomm's number of the chip; 57 is the Snapdragon 8 Gen 3.
        htp_arch: generation of its processor; 75 for that chip.

    Raises:
        SettingError: onnxruntime-qnn is not installed.
        ModelError: a part of the graph does not run on the processor.
    """
    devices = plugin_devices("qnn")
    if not devices:
        raise SettingError("a context binary needs the compiler of Qualcomm; pip install onnxruntime-qnn")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    out.unlink(missing_ok=True)
    for key, value in (
        ("session.disable_cpu_ep_fallback", "1"),
        ("ep.context_enable", "1"),
        ("ep.context_file_path", str(out)),
        ("ep.context_embed_mode", "0"),
    ):
        options.add_session_config_entry(key, value)
    wanted = {"soc_model": str(soc_model), "htp_arch": str(htp_arch)}
    options.add_provider_for_devices(devices, plugin_options("qnn") | wanted)
    try:
        onnxruntime.InferenceSession(str(bucket), options)
    except Exception as cause:  # the library raises many kinds
        first = str(cause).strip().splitlines()[0]
        raise ModelError(f"{bucket.name} cannot be compiled for soc_model {soc_model}: {first}") from None
    return out
