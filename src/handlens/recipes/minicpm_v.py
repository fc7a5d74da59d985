"""minicpm-v-1.0, -2.0 and -llama3-2.5: the recipes of the paper as configuration.

They run where someone brings pretrained parts and the pools of Tables 1 and 2; here they are planned, priced and
compared. A value that was never published has an entry in ``substitutes`` that says where the one here comes from.
Source: arXiv 2408.01800, sections 3 and 4, Tables 1 to 3; geometry from the released configurations.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from handlens.config import HandlensConfig, LanguageConfig, ResamplerConfig, SlicingConfig, VisionConfig
from handlens.train.phases import Phase, Recipe

CAPTIONS = {"caption.en": 410.0, "caption.zh": 110.0}
"""Table 1, million pairs."""
CAPTIONS_OCR = CAPTIONS | {"ocr.en": 39.0, "ocr.zh": 11.0}
SFT_1 = {
    "caption.short": 0.56, "vqa": 1.4, "knowledge": 0.06, "grounding": 0.57, "reasoning": 0.135, "math": 0.125,
    "ocr": 1.7, "chat": 0.78,
}  # fmt: skip
"""Table 2, part 1, million records: short answers."""
SFT_2 = {"part1.replay": 0.4, "ocr.long": 0.69, "instruct": 1.9, "text": 1.0}
"""Table 2, part 2: long answers. The amount of ``text`` was not published."""
PER_STEP = 4096
"""Records of one step, all processes together."""

_SIZE = "batch size not published; 4,096 pictures in pre-training, 256 in SFT (LLaVA-UHD v1 has 256 and 128)"
_ADAMW = "optimiser not published; AdamW with the weight decay and beta2 of the released fine-tuning script"
_WARM = "not published; 3 % in pre-training as LLaVA-UHD v1, 1 % in SFT as the released fine-tuning script"
_COMMON = {"slices_per_step": _SIZE, "optimiser": _ADAMW, "warmup_steps": _WARM, "precision": "not published; bfloat16"}


def _phase(name: str, samples: float, per_step: int, **rest: Any) -> Phase:
    """Return a phase that sees ``samples`` records once, ``per_step`` at a time."""
    steps = max(round(samples / per_step), 1)
    streams = min(per_step // 16, 256)
    substitutes = _COMMON | dict(rest.pop("substitutes", {}))
    return Phase(
        name=name, objective="answers", samples=int(samples), steps=steps, streams=streams,
        pictures_per_step=per_step // streams, slices_per_step=10 * per_step // streams, weight_decay=0.1, beta2=0.95,
        optimiser="adamw", precision="bfloat16", recompute=True, attention="flash",
        warmup_steps=round(steps * (0.03 if per_step == PER_STEP else 0.01)), substitutes=substitutes, **rest,
    )  # fmt: skip


def _pretraining(max_stage: int) -> tuple[Phase, ...]:
    """Stages 1 to 3 of section 4.1; the language model stays frozen."""
    stages = (
        _phase(
            "warmup", 200e6, PER_STEP, trains=("resampler",), sides_px=(224,), slicing=False, mixture=CAPTIONS,
            rate=1e-4, captions_only=True, typical_px=(640, 480), typical_tokens=40,
            substitutes={"rate": "not published; 1e-4 as stage 1 of LLaVA-UHD v4 (arXiv 2605.08985)"},
        ),
        _phase(
            "resolution", 200e6, PER_STEP, trains=("vision",), sides_px=(448,), slicing=False, mixture=CAPTIONS,
            rate=1e-5, captions_only=True, typical_px=(640, 480), typical_tokens=40,
            substitutes={"rate": "not published; 1e-5 as stage 2 of LLaVA-UHD v4"},
        ),
        _phase(
            "adaptive", 100e6, PER_STEP, trains=("vision", "resampler"), sides_px=(448,), slicing=True,
            mixture=CAPTIONS_OCR, rate=5e-5, captions_only=True, typical_px=(1000, 750), typical_tokens=80,
            substitutes={
                "samples": "not published; half of stages 1 and 2",
                "mixture": "shares not published; in proportion to Table 1",
                "rate": "not published; 5e-5 as MiniCPM-V 4.5 (arXiv 2509.18154)",
            },
        ),
    )  # fmt: skip
    return stages[:max_stage]


def _sft(slicing: bool) -> tuple[Phase, ...]:
    """Part 1, then part 2 (section 4.2): everything learns."""
    rate = {"rate": "not published; 1e-5, cosine, as SFT of MiniCPM-V 4.5", "schedule": "not published; cosine"}
    first = _phase(
        "sft1", 1e6 * sum(SFT_1.values()), 256, trains=("vision", "resampler", "language"), sides_px=(448,),
        slicing=slicing, mixture=SFT_1, rate=1e-5, schedule="cosine", typical_px=(1000, 750), typical_tokens=120,
        substitutes=rate,
    )  # fmt: skip
    second = _phase(
        "sft2", 1e6 * sum(SFT_2.values()), 256, trains=first.trains, sides_px=(448,), slicing=slicing, mixture=SFT_2,
        rate=1e-5, schedule="cosine", typical_px=(1000, 750), typical_tokens=400,
        substitutes=rate | {"mixture": "amount of text alone not published; 1 million"},
    )  # fmt: skip
    return first, second


def _minicpm_2b(slicing: bool) -> HandlensConfig:
    """1.0 and 2.0: SigLIP SoViT-400m without its last block, MiniCPM-2B."""
    return HandlensConfig(
        family="2.0" if slicing else "1.0",
        vision=VisionConfig(width=1152, mlp_width=4304, num_layers=26, num_heads=16, table_side=27),
        resampler=ResamplerConfig(num_queries=64, width=2304, vision_width=1152, query_positions=True),
        language=LanguageConfig(
            kind="minicpm",
            vocab_size=122_753,
            width=2304,
            mlp_width=5760,
            num_layers=40,
            num_heads=36,
            num_kv_heads=36,
            norm_eps=1e-5,
            tied=True,
            scale_emb=12.0,
            scale_depth=1.4,
            dim_model_base=256,
        ),
        slicing=SlicingConfig(side_px=448, max_slices=9 if slicing else 1),
    )


def _llama3_8b() -> HandlensConfig:
    """2.5: SigLIP of Idefics2 (27 blocks, 70x70 positions), Llama-3-8B-Instruct, 96 queries."""
    return HandlensConfig(
        family="2.5",
        vision=VisionConfig(width=1152, mlp_width=4304, num_layers=27, num_heads=16),
        resampler=ResamplerConfig(num_queries=96, width=4096, vision_width=1152),
        language=LanguageConfig(
            vocab_size=128_256, width=4096, mlp_width=14_336, num_layers=32, num_heads=32, num_kv_heads=8,
            rope_theta=500_000.0, max_positions=8192, norm_eps=1e-5,
        ),
        slicing=SlicingConfig(side_px=448, max_slices=9),
    )  # fmt: skip


def _v25_phases() -> tuple[Phase, ...]:
    first, second = _sft(slicing=True)
    cauldron = replace(
        second,
        mixture=second.mixture | {"cauldron": 2.0},
        samples=second.samples + 2_000_000,
        steps=second.steps + round(2e6 / 256),
    )
    multilingual = _phase(
        "multilingual", 90e3, 256, trains=first.trains, sides_px=(448,), slicing=True,
        mixture={"multilingual": 0.09}, rate=1e-6, schedule="cosine", typical_px=(1000, 750), typical_tokens=200,
        substitutes={
            "rate": "not published; 1e-6 as the released fine-tuning script",
            "mixture": "90 thousand records in 36 languages; whether mixed in or apart not published; here last",
        },
    )  # fmt: skip
    return (*_pretraining(3), first, cauldron, multilingual)


@dataclass(frozen=True, kw_only=True)
class Version:
    """One of the three models: its phases and its shape."""

    name: str
    about: str
    parts: tuple[str, ...]
    phases: Callable[[], tuple[Phase, ...]]
    shape: Callable[[], HandlensConfig]

    def recipe(self) -> Recipe:
        """Return the curriculum."""
        pools = sorted({pool for phase in self.phases() for pool in phase.mixture})
        return Recipe(
            name=self.name,
            phases=self.phases(),
            about=self.about,
            needs=(f"pretrained: {' and '.join(self.parts)}", f"data: {', '.join(pools)}"),
            machine="8xA100",
        )

    def model(self, vocab_size: int = 0) -> HandlensConfig:
        """Return the shape; the vocabulary is that of the pretrained language model."""
        return self.shape()


V1 = Version(
    name="minicpm-v-1.0",
    about="MiniCPM-V 1.0: 448x448 px fixed, stages 1 and 2, SFT; 2.8 B. Configuration only.",
    parts=("SigLIP SoViT-400m/14 at 384", "MiniCPM-2B"),
    phases=lambda: (*_pretraining(2), *_sft(slicing=False)),
    shape=lambda: _minicpm_2b(slicing=False),
)
V2 = Version(
    name="minicpm-v-2.0",
    about="MiniCPM-V 2.0: any shape up to 1.8 Mpx, stages 1 to 3, SFT; 2.8 B. Configuration only.",
    parts=("SigLIP SoViT-400m/14 at 384", "MiniCPM-2B"),
    phases=lambda: (*_pretraining(3), *_sft(slicing=True)),
    shape=lambda: _minicpm_2b(slicing=True),
)
LLAMA3_V25 = Version(
    name="minicpm-v-llama3-2.5",
    about="MiniCPM-Llama3-V 2.5: stages 1 to 3, SFT with Cauldron, multilingual SFT; 8.5 B. Configuration only.",
    parts=("SigLIP SoViT-400m/14 of Idefics2", "Llama-3-8B-Instruct"),
    phases=_v25_phases,
    shape=_llama3_8b,
)
