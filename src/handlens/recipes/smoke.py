"""nano:smoke: every phase of nano with a model of seconds, to see that a machine can train at all.

The weights are good for nothing. The whole recipe, its data included, takes under two minutes on two cores.
"""

from dataclasses import replace

from handlens.config import HandlensConfig, LanguageConfig, ResamplerConfig, SlicingConfig, VisionConfig
from handlens.recipes import nano
from handlens.train.phases import Recipe

SPOKEN = {"en": 0.5, "de": 0.25, "ru": 0.25}
QUICK = {"scenes": 0.5, "labels": 0.5}
"""Pictures that are drawn in a millisecond."""
STEPS = {
    "language": 40,
    "vision": 30,
    "gather": 30,
    "layout": 40,
    "warmup": 30,
    "resolution": 20,
    "adaptive": 30,
    "join": 10,
    "sft": 30,
}


def model(vocab_size: int = 512) -> HandlensConfig:
    """Return nano in small: slices of 112 px, 16 queries, one layer less of everything."""
    return HandlensConfig(
        family="nano",
        vision=VisionConfig(width=96, mlp_width=192, num_layers=2, num_heads=2),
        resampler=ResamplerConfig(num_queries=16, width=128, vision_width=96),
        language=LanguageConfig(
            vocab_size=vocab_size, width=128, mlp_width=256, num_layers=2, num_heads=2, num_kv_heads=1, tied=True
        ),
        slicing=SlicingConfig(side_px=112, max_slices=4),
    )


def recipe() -> Recipe:
    """Return the curriculum of nano with a few steps of each phase."""
    phases = tuple(
        replace(
            phase, sides_px=(112,), mixture=QUICK, languages=SPOKEN if len(phase.languages) > 1 else phase.languages,
            steps=STEPS.get(phase.name, 20), rate=2e-3, warmup_steps=5,
            slices_per_step=10, pictures_per_step=4, streams=1, local_steps=1, ramp_pictures=0, zoomed_share=0.0,
        )
        for phase in nano.recipe().phases
    )  # fmt: skip
    return Recipe(
        name="nano:smoke",
        phases=phases,
        vocab_size=512,
        vocabulary_records=200,
        checkpoint_seconds=2.0,
        report_steps=10,
        about="Every phase of nano in under two minutes, to try a machine; the weights are good for nothing.",
    )
