"""The likely cause of a difference, from the stage, its size, the family and the engines.

Boundary: words only. Every sentence names a mistake that was made in a port of these models.
"""

from handlens.families import Family

RESIZE_GAP = 2.01 * 2 / 255
"""Two resize filters of bytes differ by at most two steps of 255, in pixels from -1 to 1."""


def likely_cause(stage: str, gap: float, family: Family, kinds: str) -> str:
    """Return one line that says where to look.

    Args:
        stage: one of ``case.STAGES``.
        gap: the difference that was measured.
        family: rules of the released version.
        kinds: names of the engines, for example ``torch and llama.cpp``.
    """
    in_llama_cpp = "llama.cpp" in kinds
    if stage == "slice grid":
        if in_llama_cpp:
            return "llama.cpp slices where a side is above 448 px and rounds in 32 bits; choose another picture size"
        return "scale_resolution or max_slice_nums of config.json differ, or halves are rounded up instead of to even"
    if stage == "pixels":
        if gap <= RESIZE_GAP:
            return "another resize filter (Pillow's bicubic and torch's differ by up to 2 of 255), or another Pillow"
        return "pictures differ, slices are cut before resizing, or mean and deviation are not 0.5"
    if stage == "patch positions":
        if family.attends_padding:
            return "the released 2.5 takes row 0 of the table for all patches; this side has 2-D positions"
        return "floor(70 * i / n) instead of the bucketised rule (n = 25, 49, 50, 55, 58 and above 70), or the reverse"
    if stage == "vision tokens":
        return "weights below vpm. differ, or GELU (erf or tanh), the last block, the last norm, or read padding"
    if stage == "visual tokens":
        return _visual(gap, family, in_llama_cpp)
    if stage == "prompt ids":
        return "chat template, a begin token given twice or not at all, image ids, or a newline after the picture"
    if stage == "logits":
        if in_llama_cpp:
            return "weights below llm. differ, or the row order of q and k, the rotary factors (4.0) or the logit scale"
        return "weights below llm. differ, or rotary base, scaling, precision, or places of visual tokens"
    return "logits agree but a choice differs: greedy decoding, an id left out, or a stop token"


def _visual(gap: float, family: Family, in_llama_cpp: bool) -> str:
    if in_llama_cpp and family.attends_padding:
        return (
            "llama.cpp gives 2.5 its 2-D positions; the released code takes row 0 and reads padding; both are as known"
        )
    if in_llama_cpp and gap > 0.05:
        return (
            "llama.cpp cut slices of another size or placed patches by the floor rule; or the projection is transposed"
        )
    return "weights below resampler. differ, keys and values or x and y are exchanged, or the projection is transposed"
