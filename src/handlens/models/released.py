"""The released versions at their true size.

Boundary: numbers only. Source: the config.json files of the released checkpoints; those of 1.0 and the layer count of
4.0 follow from their parameter counts.
"""

from handlens.config import HandlensConfig, LanguageConfig, LongRope, ResamplerConfig, SlicingConfig, VisionConfig
from handlens.errors import ModelError, did_you_mean
from handlens.families import LanguageKind, family_named

_LONG_ROPE_4_0 = (
    0.9977997200264581, 1.014658295992452, 1.0349680404997148, 1.059429246056193, 1.0888815016813513,
    1.1243301355211495, 1.166977103606075, 1.2182568066927284, 1.2798772354275727, 1.3538666751582975,
    1.4426259039919596, 1.5489853358570191, 1.6762658237220625, 1.8283407612492941, 2.0096956085876183,
    2.225478927469756, 2.481536379650452, 2.784415934557119, 3.1413289096347365, 3.560047844772632,
    4.048719380066383, 4.615569542115128, 5.2684819496549835, 6.014438591970396, 6.858830049237097,
    7.804668263503327, 8.851768731513417, 9.99600492938444, 11.228766118181639, 12.536757560834843,
    13.902257701387796, 15.303885189125953, 16.717837610115794, 18.119465097853947, 19.484965238406907,
    20.792956681060105, 22.02571786985731, 23.16995406772833, 24.217054535738416, 25.16289275000465,
    26.007284207271347, 26.753240849586767, 27.40615325712662, 27.973003419175363, 28.461674954469114,
    28.880393889607006, 29.237306864684626, 29.540186419591297, 29.79624387177199, 30.01202719065413,
    30.193382037992453, 30.34545697551969, 30.47273746338473, 30.579096895249787, 30.66785612408345,
    30.741845563814174, 30.80346599254902, 30.85474569563567, 30.897392663720595, 30.932841297560394,
    30.962293553185553, 30.986754758742034, 31.007064503249293, 31.02392307921529,
)  # fmt: skip

FAMILY_OF = {
    "minicpm-v": "1.0",
    "minicpm-v-2": "2.0",
    "minicpm-llama3-v-2.5": "2.5",
    "minicpm-v-2.6": "2.6",
    "minicpm-v-4": "4.0",
    "minicpm-v-4.5": "4.5",
    "minicpm-v-4.6": "4.6",
}
"""Name of a released version -> family."""


def _language(kind: LanguageKind, sizes: tuple[int, int, int, int, int, int], **more: object) -> LanguageConfig:
    vocab_size, width, mlp_width, num_layers, num_heads, num_kv_heads = sizes
    return LanguageConfig(
        kind=kind, vocab_size=vocab_size, width=width, mlp_width=mlp_width, num_layers=num_layers, num_heads=num_heads,
        num_kv_heads=num_kv_heads, **more,  # type: ignore[arg-type]
    )  # fmt: skip


_MINICPM = _language(
    "minicpm", (122_753, 2304, 5760, 40, 36, 36), norm_eps=1e-5, scale_emb=12.0, scale_depth=1.4, dim_model_base=256
)
LANGUAGES = {
    "1.0": _MINICPM,
    "2.0": _MINICPM,
    "2.5": _language(
        "llama", (128_256, 4096, 14_336, 32, 32, 8), rope_theta=500_000.0, max_positions=8192, norm_eps=1e-5
    ),
    "2.6": _language("qwen2", (151_666, 3584, 18_944, 28, 28, 4), rope_theta=1_000_000.0, max_positions=32_768),
    "4.0": _language(
        "llama", (73_448, 2560, 10_240, 32, 32, 2), head_size=128, max_positions=32_768,
        long_rope=LongRope(short=_LONG_ROPE_4_0, long=_LONG_ROPE_4_0, original_positions=32_786, factor=1.0),
    ),
    "4.5": _language(
        "qwen3", (151_748, 4096, 12_288, 36, 32, 8), head_size=128, rope_theta=1_000_000.0, max_positions=40_960
    ),
}  # fmt: skip


def find_family(name: str) -> tuple[str, str]:
    """Return name and family of a released version; ``2.5``, ``minicpm-llama3-v-2_5`` and owner/name are understood.

    >>> find_family("openbmb/MiniCPM-Llama3-V-2_5"), find_family("2.0")
    (('minicpm-llama3-v-2.5', '2.5'), ('minicpm-v-2', '2.0'))

    Raises:
        ModelError: the name is unknown.
    """
    key = name.strip().lower().removeprefix("openbmb/").replace("_", ".")
    key = {family: known for known, family in FAMILY_OF.items()}.get(key, key)
    key = key.removesuffix(".0") if key.removesuffix(".0") in FAMILY_OF else key
    key = "minicpm-v" if key == "minicpm-v-1" else key
    if key not in FAMILY_OF:
        raise ModelError(f"unknown model '{name}'{did_you_mean(key, FAMILY_OF)}")
    return key, FAMILY_OF[key]


def released_config(family: str) -> HandlensConfig:
    """Return the true size of a released version.

    Raises:
        ModelError: the family is unknown, or transformers alone knows its sizes (4.6).
    """
    record = family_named(family)
    if family not in LANGUAGES:
        raise ModelError(f"family {family} has no size here; known: {', '.join(LANGUAGES)}")
    language, timm = LANGUAGES[family], record.tower == "timm"
    return HandlensConfig(
        family=family,
        vision=VisionConfig(
            width=1152, mlp_width=4304, num_layers=26 if timm else 27, num_heads=16, table_side=27 if timm else 70
        ),
        resampler=ResamplerConfig(
            num_queries=record.num_queries,
            width=language.width,
            vision_width=1152,
            query_positions=record.query_positions,
            stored_keys=record.stored_keys,
        ),
        language=language,
        slicing=SlicingConfig(side_px=record.side_px, max_slices=record.max_slices),
    )
