"""What every vision half is fed: patches, position ids and key positions of one slice.

Boundary: numpy and the configuration; torch and device both call it, so they cannot differ.
"""

import numpy as np
from jaxtyping import Float32, Int64

from handlens.config import HandlensConfig
from handlens.core.patches import key_positions, position_ids, to_patches
from handlens.families import family_named


def slice_inputs(
    pixels: Float32[np.ndarray, "3 height width"], config: HandlensConfig
) -> tuple[Float32[np.ndarray, "patches pixels"], Int64[np.ndarray, "patches"], Float32[np.ndarray, "patches dim"]]:
    """Return patches, position ids and key positions of one slice: what every vision half is fed."""
    side = config.vision.patch_px
    rows, columns = pixels.shape[1] // side, pixels.shape[2] // side
    rule = family_named(config.family).position_rule
    return (
        to_patches(pixels, side),
        position_ids(rows, columns, table_side=config.vision.table_side, rule=rule),
        key_positions(rows, columns, config.resampler.width),
    )
