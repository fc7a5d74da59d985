"""The data of the paper as named mixtures: what each category holds, and which generator stands for it here.

Boundary: names and numbers only. Amounts are those of arXiv 2408.01800, tables 1 and 2. Licences are a first
guide: the page of each corpus decides, so read it before use. Nothing is downloaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handlens.errors import DataError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A public data set by name."""

    name: str
    licence: str
    """Of the annotations; pictures from the web stay with their owners."""


@dataclass(frozen=True, kw_only=True)
class Category:
    """One row of a table of the paper."""

    name: str
    languages: tuple[str, ...]
    samples: int | None
    """None where the paper gives no number."""
    corpora: tuple[str, ...]
    """Names in ``CORPORA``."""
    kinds: Mapping[str, float]
    """Kind of ``handlens generate`` -> its share, where the real corpora are not at hand."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Categories that are drawn by their amounts, or one after the other."""

    name: str
    title: str
    categories: tuple[Category, ...]
    after: str = ""
    """Mixture that is fed before this one, in order; empty for the first."""
    source: str = "arXiv 2408.01800, table 2"

    @property
    def samples(self) -> int:
        """All amounts that the paper gives."""
        return sum(category.samples or 0 for category in self.categories)

    def shares(self) -> dict[str, float]:
        """Return the share of each category whose amount is known; they add up to 1."""
        return {row.name: row.samples / self.samples for row in self.categories if row.samples}

    def kinds(self) -> dict[str, float]:
        """Return the share of each generator, as ``Phase.mixture`` takes it; they add up to 1.

        Categories without an amount, and those that no generator can draw, are left out.
        """
        weights: dict[str, float] = {}
        for row in self.categories:
            for kind, share in row.kinds.items():
                weights[kind] = weights.get(kind, 0.0) + share * (row.samples or 0)
        total = sum(weights.values())
        return {kind: weight / total for kind, weight in sorted(weights.items())} if total else {}

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        shares = self.shares()
        return {
            "name": self.name, "title": self.title, "after": self.after, "source": self.source,
            "samples": self.samples, "kinds": self.kinds(),
            "categories": [
                {
                    "name": row.name, "languages": list(row.languages), "samples": row.samples,
                    "share": shares.get(row.name), "kinds": dict(row.kinds),
                    "corpora": [{"name": name, "licence": CORPORA[name].licence} for name in row.corpora],
                }
                for row in self.categories
            ],
        }  # fmt: skip


_ROWS = """
COCO | CC-BY-4.0; pictures under Flickr terms
VG | CC-BY-4.0; pictures under Flickr terms
CC3M | free use with attribution to Google; pictures belong to their owners
CC12M | free use with attribution to Google; pictures belong to their owners
LAION-COCO | CC-BY-4.0; pictures belong to their owners
COYO | CC-BY-4.0; pictures belong to their owners
LAION-2B | CC-BY-4.0; pictures belong to their owners
AIC | research use, see its page
LAION-2B-Chinese | CC-BY-4.0; pictures belong to their owners
WuKong | CC-BY-NC-SA-4.0
Zero-Chinese | research use, see its page
WIT | CC-BY-SA-3.0
IDL | research use, see its page
SynthText | research use, see its page
SynthDoG-en | MIT
SynthDoG-zh | MIT
ArxivCap | CC-BY-NC-SA-4.0; each paper has its own
LAION-2B-OCR | CC-BY-4.0; pictures belong to their owners
Flickr30K | research use, see its page
FM-IQA | research use, see its page
VGQA | CC-BY-4.0
IconQA | CC-BY-NC-SA-4.0
GQA | CC-BY-4.0
VQAv2 | CC-BY-4.0
CLEVR | CC-BY-4.0
VizWiz | CC-BY-4.0
Visual7W | MIT
COCO-QA | research use, see its page
OKVQA | research use, see its page
A-OKVQA | Apache-2.0
KVQA | research use, see its page
ScienceQA | CC-BY-NC-SA-4.0
RefCOCO | Apache-2.0; pictures under Flickr terms
COMVINT | research use, see its page
VCR | research use, see its page
NLVR | CC-BY-4.0
LRV | BSD-3-Clause
GeoQA | research use, see its page
SMART-101 | CC-BY-SA-4.0
DocVQA | research use, see its page
TextVQA | CC-BY-4.0
OCR-VQA | research use, see its page
ST-VQA | CC-BY-4.0
VisualMRC | research use, see its page
DVQA | CC-BY-NC-4.0
FigureQA | research use, see its page
ChartQA | GPL-3.0
DeepForm | research use, see its page
TabFact | CC-BY-4.0
InfographicsVQA | research use, see its page
Kleister Charity | research use, see its page
WikiTableQuestions | CC-BY-SA-4.0
Real-CQA | research use, see its page
AI2D | CC-BY-SA-4.0
FSVQA | research use, see its page
Visual-Dialog | CC-BY-4.0
ArxivQA | CC-BY-SA-4.0
LLaVAR | CC-BY-NC-4.0
TextOCR-GPT4V | CC-BY-NC-4.0
SVIT | CC-BY-4.0; answers made by a closed model, see its terms
LLaVA-Instruct-150K | CC-BY-4.0; answers made by a closed model, see its terms
UniMM-Chat | CC-BY-NC-4.0
ShareGPT4V | CC-BY-NC-4.0
LVIS-Instruct4V | CC-BY-4.0; answers made by a closed model, see its terms
ALLaVA | Apache-2.0; answers made by a closed model, see its terms
UltraChat | MIT
Alpaca | CC-BY-NC-4.0
ShareGPT | not stated
BELLE | GPL-3.0
OpenOrca | MIT
OpenHermes | per part, see its page
MiniCPM SFT | not published
Cauldron | per subset, see its page
VisCPM multilingual SFT | not published
"""
CORPORA: dict[str, Corpus] = {}
for _row in _ROWS.strip().splitlines():
    _name, _, _licence = _row.partition(" | ")
    CORPORA[_name] = Corpus(name=_name, licence=_licence)


def _category(name: str, languages: str, samples: int | None, corpora: str, **kinds: float) -> Category:
    return Category(
        name=name, languages=tuple(languages.split()), samples=samples, corpora=tuple(corpora.split(", ")), kinds=kinds
    )


_MILLION = 1_000_000
_OCR_1 = (
    "DocVQA, TextVQA, OCR-VQA, ST-VQA, VisualMRC, DVQA, FigureQA, ChartQA, DeepForm, TabFact, InfographicsVQA, "
    "Kleister Charity, WikiTableQuestions, Real-CQA, AI2D"
)
_OCR_2 = "DocVQA, TextVQA, OCR-VQA, VisualMRC, ChartQA, AI2D, ArxivQA, LLaVAR, TextOCR-GPT4V"
_READING = {
    "lines": 0.3,
    "receipts": 0.15,
    "labels": 0.1,
    "tables": 0.15,
    "charts": 0.15,
    "forms": 0.1,
    "invoices": 0.05,
}

MIXTURES: dict[str, Mixture] = {
    mixture.name: mixture
    for mixture in (
        Mixture(
            name="pretraining", title="the pool of the three pre-training stages", source="arXiv 2408.01800, table 1",
            categories=(
                _category("captions-en", "en", 410 * _MILLION,
                          "COCO, VG, CC3M, CC12M, LAION-COCO, COYO, LAION-2B", scenes=1.0),
                _category("captions-zh", "zh", 110 * _MILLION,
                          "AIC, LAION-2B-Chinese, WuKong, Zero-Chinese", scenes=1.0),
                _category("ocr-knowledge-en", "en", 39 * _MILLION,
                          "WIT, IDL, SynthText, SynthDoG-en, SynthDoG-zh, ArxivCap",
                          lines=0.5, letters=0.2, tables=0.1, formulas=0.1, charts=0.1),
                _category("ocr-knowledge-zh", "zh", 11 * _MILLION, "WIT, LAION-2B-OCR", lines=0.7, letters=0.3),
            ),
        ),
        Mixture(
            name="sft-1", title="SFT part 1: short answers and recognition",
            categories=(
                _category("short-captions", "en", 560_000, "Flickr30K, COCO", scenes=1.0),
                _category("vqa", "en zh", 1_400_000,
                          "FM-IQA, VGQA, IconQA, GQA, VQAv2, CLEVR, VizWiz, Visual7W, COCO-QA", scenes=1.0),
                _category("knowledge", "en", 60_000, "OKVQA, A-OKVQA, KVQA, ScienceQA"),
                _category("grounding", "en", 570_000, "RefCOCO", scenes=0.8, maps=0.2),
                _category("reasoning", "en", 135_000, "COMVINT, VCR, NLVR, LRV", scenes=1.0),
                _category("math", "en zh", 125_000, "GeoQA, SMART-101", formulas=0.5, charts=0.5),
                _category("ocr", "en", 1_700_000, _OCR_1, **_READING),
                _category("chat", "en", 780_000, "FSVQA, Visual-Dialog", scenes=1.0),
            ),
        ),
        Mixture(
            name="sft-2", title="SFT part 2: long answers and conversation, fed after part 1", after="sft-1",
            categories=(
                _category("part-1-replay", "en zh", 400_000, "Flickr30K, GQA, VQAv2, DocVQA, Visual-Dialog", mixed=1.0),
                _category("ocr", "en", 690_000, _OCR_2, **_READING),
                _category("instruct", "en zh", 1_900_000,
                          "SVIT, LLaVA-Instruct-150K, UniMM-Chat, ShareGPT4V, LVIS-Instruct4V, ALLaVA",
                          scenes=0.6, screens=0.2, charts=0.2),
                _category("text-only", "en zh", None,
                          "UltraChat, Alpaca, ShareGPT, BELLE, OpenOrca, OpenHermes, MiniCPM SFT"),
            ),
        ),
        Mixture(
            name="extras-2.5", title="what 2.5 adds to SFT part 2; multilingual below 0.5 % of all samples",
            after="sft-2", source="arXiv 2408.01800, section 4.2",
            categories=(
                _category("cauldron", "en", 2_000_000, "Cauldron", mixed=1.0),
                _category("multilingual", "mul", 90_000, "VisCPM multilingual SFT", mixed=1.0),
            ),
        ),
    )
}  # fmt: skip
"""In the order in which they are fed."""
MAX_MULTILINGUAL = 0.005
"""Largest share of multilingual samples in SFT that the paper allows; it needs the text-only data of part 2."""


def mixture_named(name: str) -> Mixture:
    """Return a mixture.

    Raises:
        DataError: the name is unknown.
    """
    if name not in MIXTURES:
        raise DataError(f"unknown mixture '{name}'{did_you_mean(name, MIXTURES)}")
    return MIXTURES[name]


def fewest_text_only() -> int:
    """Return how many text-only samples SFT needs so that the multilingual part stays below its limit.

    The paper gives no number; its own amounts leave this one.

    >>> fewest_text_only()
    7590000
    """
    sft = ("sft-1", "sft-2", "extras-2.5")
    known = sum(MIXTURES[name].samples for name in sft)
    multilingual = next(row.samples or 0 for row in MIXTURES["extras-2.5"].categories if row.name == "multilingual")
    return round(multilingual / MAX_MULTILINGUAL) - known
