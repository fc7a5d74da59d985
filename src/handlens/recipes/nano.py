"""nano: the model that ships, from nothing, on two cores in hours.

The phases ``language`` and ``vision`` stand in for the pretrained backbones of the paper; the three
pre-training stages and SFT follow arXiv 2408.01800, section 4, with slices of 224 px instead of 448.
"""

from handlens.config import HandlensConfig, LanguageConfig, ResamplerConfig, SlicingConfig, VisionConfig
from handlens.data.generate import LANGUAGES
from handlens.train.phases import Phase, Recipe

TALK = {"lines": 0.55, "pages": 0.1, "scenes": 0.15, "receipts": 0.05, "labels": 0.08, "tables": 0.07}
EVERYTHING = {"lines": 0.28, "pages": 0.15, "scenes": 0.22, "receipts": 0.18, "labels": 0.09, "tables": 0.08}

INSTRUCT = {"lines": 0.28, "pages": 0.07, "scenes": 0.35, "receipts": 0.12, "labels": 0.1, "tables": 0.08}
FOLLOW = {
    "lines": 0.24, "pages": 0.06, "scenes": 0.30, "receipts": 0.14, "labels": 0.10, "tables": 0.10, "forms": 0.06,
}  # fmt: skip
ZOOMED = {
    "lines": 0.26, "pages": 0.06, "scenes": 0.24, "receipts": 0.18, "labels": 0.10, "tables": 0.10, "forms": 0.06,
}  # fmt: skip
SAID = {
    "lines": 0.28, "pages": 0.06, "scenes": 0.25, "receipts": 0.14, "labels": 0.07, "tables": 0.08, "forms": 0.04,
    "charts": 0.08,
}  # fmt: skip
TIER_A = ("de", "es", "fr", "it", "nl", "pt")
TIER_B = tuple(code for code in LANGUAGES if code not in ("en", *TIER_A))
SPOKEN = {"en": 0.72} | dict.fromkeys(TIER_A, 0.03) | dict.fromkeys(TIER_B, 0.10 / len(TIER_B))
"""Tier A is read and answered freely, tier B is shown: a language of it has less than 0.5 % of the records."""
CELLS = {"pages": 0.3, "lines": 0.3, "scenes": 0.2, "receipts": 0.12, "labels": 0.08}
SHOWN = {"pages": 0.33, "lines": 0.25, "scenes": 0.2, "receipts": 0.1, "labels": 0.06, "tables": 0.06}


def model(vocab_size: int = 512) -> HandlensConfig:
    """Return the shape of nano; ``docs/log.md`` has the measurements that chose it."""
    return HandlensConfig(
        family="nano",
        vision=VisionConfig(width=192, mlp_width=512, num_layers=3, num_heads=3),
        resampler=ResamplerConfig(num_queries=64, width=256, vision_width=192),
        language=LanguageConfig(
            vocab_size=vocab_size, width=256, mlp_width=512, num_layers=4, num_heads=4, num_kv_heads=2, tied=True
        ),
        slicing=SlicingConfig(side_px=224, max_slices=9),
    )


def recipe() -> Recipe:
    """Return the whole curriculum."""
    return Recipe(
        name="nano",
        about="The model that ships, from nothing, on two cores in hours.",
        vocab_size=512,
        phases=(
            Phase(
                name="language", trains=("language",), objective="text", sides_px=(224,), slicing=False,
                mixture=TALK, steps=800, rate=3e-3, slices_per_step=1000, pictures_per_step=16, ramp_pictures=10000,
            ),
            Phase(
                name="vision", trains=("vision",), objective="reading", sides_px=(224,), slicing=True,
                mixture={"pages": 0.7, "lines": 0.1, "scenes": 0.2}, steps=3000, rate=2.5e-3, slices_per_step=8,
                pictures_per_step=64, ramp_pictures=16000,
            ),
            Phase(
                name="gather", trains=("vision",), objective="gather", sides_px=(224,), slicing=True,
                mixture=CELLS, steps=1200, rate=2.5e-3, slices_per_step=10, pictures_per_step=64, ramp_pictures=2000,
            ),
            Phase(
                name="layout", trains=("language",), objective="layout", sides_px=(224,), slicing=True,
                mixture=EVERYTHING, steps=1700, rate=2e-3, slices_per_step=60, pictures_per_step=16,
                ramp_pictures=8000,
            ),
            Phase(
                name="warmup", trains=("resampler",), objective="cells", sides_px=(224,), slicing=False, mixture=SHOWN,
                steps=120, rate=3e-3, slices_per_step=16, pictures_per_step=16, ramp_pictures=500,
            ),
            Phase(
                name="resolution", trains=("vision",), objective="cells", sides_px=(224,), slicing=False,
                mixture=SHOWN, steps=40, rate=1e-3, slices_per_step=16, pictures_per_step=16,
            ),
            Phase(
                name="adaptive", trains=("vision", "resampler"), objective="cells", sides_px=(224,), slicing=True,
                mixture=SHOWN, steps=400, rate=1.5e-3, slices_per_step=16, pictures_per_step=16,
            ),
            Phase(
                name="sft", trains=("vision", "resampler", "language"), objective="answers", sides_px=(224,),
                slicing=True, mixture=INSTRUCT, zoomed_share=0.06, cells_weight=1.0, steps=500, rate=1.5e-3,
                slices_per_step=36, pictures_per_step=16, decay_share=0.5, ramp_pictures=1, warmup_steps=25,
            ),
            Phase(
                name="sft-2", trains=("vision", "resampler", "language"), objective="answers", sides_px=(224,),
                slicing=True, mixture=FOLLOW, zoomed_share=0.06, cells_weight=1.0, head_of="sft", steps=1600,
                rate=1.5e-3, slices_per_step=36, pictures_per_step=16, decay_share=0.6, ramp_pictures=1,
                warmup_steps=25,
            ),
            Phase(
                name="sft-3", trains=("vision", "resampler", "language"), objective="answers", sides_px=(224,),
                slicing=True, mixture=ZOOMED, zoomed_share=0.2, cells_weight=1.0, head_of="sft-2", steps=1350,
                rate=1.3e-3, slices_per_step=40, pictures_per_step=16, decay_share=0.75, ramp_pictures=1,
                warmup_steps=25,
            ),
            Phase(
                name="multilingual", trains=("vision", "resampler", "language"), objective="answers", sides_px=(224,),
                slicing=True, mixture=SAID, languages=SPOKEN, zoomed_share=0.12, cells_weight=1.0, head_of="sft-3",
                answer_weight="root", steps=4000, rate=1e-3, slices_per_step=40, pictures_per_step=16,
                decay_share=0.9, ramp_pictures=1, warmup_steps=25,
            ),
        ),
    )  # fmt: skip
