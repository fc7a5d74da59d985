"""nano: the model that ships, from nothing, on two cores in hours.

The phases ``language`` and ``vision`` stand in for the pretrained backbones of the paper; the three
pre-training stages and SFT follow arXiv 2408.01800, section 4, with slices of 224 px instead of 448.
"""

from handlens.config import HandlensConfig, LanguageConfig, ResamplerConfig, SlicingConfig, VisionConfig
from handlens.data.generate import LANGUAGES
from handlens.train.phases import Phase, Recipe

TIER_A = ("de", "es", "fr", "it", "nl", "pt")
TIER_B = tuple(code for code in LANGUAGES if code not in ("en", *TIER_A))
SOME = {"en": 0.85} | dict.fromkeys(TIER_A, 0.025)
SPOKEN = {"en": 0.72} | dict.fromkeys(TIER_A, 0.03) | dict.fromkeys(TIER_B, 0.10 / len(TIER_B))
"""Tier A is read and answered freely, tier B is shown: a language of it has less than 0.5 % of the records."""

TALK = {"lines": 0.55, "pages": 0.1, "scenes": 0.15, "receipts": 0.05, "labels": 0.08, "tables": 0.07}
CELLS = {"pages": 0.3, "lines": 0.3, "scenes": 0.2, "receipts": 0.12, "labels": 0.08}
SHOWN = {"pages": 0.33, "lines": 0.25, "scenes": 0.2, "receipts": 0.1, "labels": 0.06, "tables": 0.06}
WRITTEN = {"lines": 0.5, "pages": 0.18, "scenes": 0.13, "receipts": 0.08, "labels": 0.06, "tables": 0.05}
TOLD = {"lines": 0.26, "pages": 0.08, "scenes": 0.3, "receipts": 0.16, "labels": 0.08, "tables": 0.12}
INSTRUCT = {"lines": 0.28, "pages": 0.07, "scenes": 0.31, "receipts": 0.14, "labels": 0.1, "tables": 0.1}
FOLLOW = {
    "lines": 0.28, "pages": 0.04, "scenes": 0.22, "receipts": 0.16, "labels": 0.08, "tables": 0.1, "forms": 0.04,
    "charts": 0.08,
}  # fmt: skip
POLISH = {
    "lines": 0.36, "pages": 0.05, "scenes": 0.16, "receipts": 0.15, "labels": 0.09, "tables": 0.08, "forms": 0.04,
    "charts": 0.07,
}  # fmt: skip


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
                mixture=TALK, languages=SOME, turns_per_picture=6, steps=800, rate=3e-3, slices_per_step=500,
                pictures_per_step=8, streams=2, ramp_pictures=10000,
            ),
            Phase(
                name="vision", trains=("vision",), objective="reading", sides_px=(224,), slicing=True,
                mixture={"pages": 0.7, "lines": 0.1, "scenes": 0.2}, languages=SOME, steps=4500, rate=2.5e-3,
                slices_per_step=4, pictures_per_step=64, streams=2, ramp_pictures=16000,
            ),
            Phase(
                name="gather", trains=("vision",), objective="gather", sides_px=(224,), slicing=True,
                mixture=CELLS, languages=SOME, steps=1600, rate=2.5e-3, slices_per_step=6, pictures_per_step=64,
                streams=2, ramp_pictures=2000,
            ),
            Phase(
                name="layout", trains=("language",), objective="layout", sides_px=(224,), slicing=True,
                mixture=TOLD, languages=SOME, turns_per_picture=8, answer_weight="root", steps=700, rate=2e-3,
                slices_per_step=30, pictures_per_step=8, streams=2, ramp_pictures=6000,
            ),
            Phase(
                name="things", trains=("language",), objective="layout", sides_px=(224,), slicing=True,
                mixture={"scenes": 0.9, "lines": 0.1}, languages=SOME, turns_per_picture=12, answer_weight="root",
                head_of="layout", steps=300, rate=2e-3, slices_per_step=30, pictures_per_step=8, streams=2,
                decay_share=0.5, ramp_pictures=1,
            ),
            Phase(
                name="layout-2", trains=("language",), objective="layout", sides_px=(224,), slicing=True,
                mixture=TOLD, languages=SOME, turns_per_picture=8, answer_weight="root", head_of="things", steps=2200,
                rate=2e-3, slices_per_step=30, pictures_per_step=8, streams=2, decay_share=0.5, ramp_pictures=1,
            ),
            Phase(
                name="warmup", trains=("resampler",), objective="cells", sides_px=(224,), slicing=False, mixture=SHOWN,
                languages=SOME, steps=120, rate=3e-3, slices_per_step=8, pictures_per_step=8, streams=2,
                ramp_pictures=500,
            ),
            Phase(
                name="resolution", trains=("vision",), objective="cells", sides_px=(224,), slicing=False,
                mixture=SHOWN, languages=SOME, steps=40, rate=1e-3, slices_per_step=8, pictures_per_step=8, streams=2,
                head_of="warmup",
            ),
            Phase(
                name="adaptive", trains=("vision", "resampler"), objective="cells", sides_px=(224,), slicing=True,
                mixture=SHOWN, languages=SOME, steps=3100, rate=1.5e-3, slices_per_step=8, pictures_per_step=8,
                streams=2, head_of="resolution", decay_share=0.0,
            ),
            Phase(
                name="adaptive-2", trains=("vision", "resampler"), objective="cells", sides_px=(224,), slicing=True,
                mixture=WRITTEN, languages=SOME, steps=6000, rate=1.5e-3, slices_per_step=8, pictures_per_step=8,
                streams=2, head_of="adaptive", decay_share=0.5,
            ),
            Phase(
                name="join", trains=(), objective="cells", sides_px=(224,), slicing=True, mixture=SHOWN, languages=SOME,
                optimiser="adamw", weight_decay=0.0, steps=160, rate=1.5e-2, slices_per_step=8, pictures_per_step=8,
                streams=2, decay_share=0.9, ramp_pictures=1, warmup_steps=5,
            ),
            Phase(
                name="sft", trains=("vision", "resampler", "language"), objective="answers", sides_px=(224,),
                slicing=True, mixture=INSTRUCT, languages=SOME, zoomed_share=0.06, cells_weight=1.0, head_of="join",
                turns_per_picture=6, answer_weight="root", steps=60, rate=1e-3, slices_per_step=20,
                pictures_per_step=8, streams=2, local_steps=8, decay_share=0.0, ramp_pictures=1, warmup_steps=4,
            ),
            Phase(
                name="sft-2", trains=("vision", "resampler", "language"), objective="answers", sides_px=(224,),
                slicing=True, mixture=FOLLOW, languages=SOME, zoomed_share=0.1, cells_weight=1.0, head_of="sft",
                turns_per_picture=6, answer_weight="root", steps=40, rate=1e-3, slices_per_step=20,
                pictures_per_step=8, streams=2, local_steps=8, decay_share=0.0, ramp_pictures=1, warmup_steps=4,
            ),
            Phase(
                name="multilingual", trains=("vision", "resampler", "language"), objective="answers", sides_px=(224,),
                slicing=True, mixture=FOLLOW, languages=SPOKEN, zoomed_share=0.15, cells_weight=1.0, head_of="sft-2",
                turns_per_picture=6, answer_weight="root", steps=500, rate=1e-3, slices_per_step=20,
                pictures_per_step=8, streams=2, local_steps=8, decay_share=0.97, ramp_pictures=1, warmup_steps=4,
            ),
            Phase(
                name="polish", trains=("vision", "resampler", "language"), objective="answers", sides_px=(224,),
                slicing=True, mixture=POLISH, languages=SPOKEN, zoomed_share=0.15, cells_weight=1.0,
                head_of="multilingual", turns_per_picture=6, answer_weight="root", steps=760, rate=8e-4,
                slices_per_step=20, pictures_per_step=8, streams=2, local_steps=8, decay_share=0.97, ramp_pictures=1,
                warmup_steps=4,
            ),
        ),
    )  # fmt: skip
