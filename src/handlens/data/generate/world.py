"""The fonts of every script beside plain English, and which of them a language may use.

Boundary: lists and coverage; opening a file is ``fonts``, joining letters is ``shaper``.
"""

from functools import lru_cache

from handlens.data.generate.fonts import FONTS, Font, font_path
from handlens.errors import DataError, NeedsExtra

_OFL = "OFL-1.1"
_KURINTO = "static/weblate_fonts/kurinto/ttf"
_TALL = {
    "Arab": "لأإجعكي", "Syrc": "ܠܓܝܩ", "Deva": "ईकृूंर्पौं", "Beng": "ইকৃূর্পৌঁ", "Thai": "ปี้ฎุโ", "Mymr": "မြို့ကြွ",
    "Hans": "国jg", "Jpan": "国jg", "Kore": "한jg",
}  # fmt: skip


def _world(
    family: str, style: str, package: str, files: str, scripts: str,
    *, folder: str = "files", is_heldout: bool = False, weights: tuple[int, ...] = (0,), extra: str = "languages",
) -> list[tuple[Font, tuple[str, ...]]]:  # fmt: skip
    return [
        (
            Font(
                family=family, style=style, file=file, package=package, folder=folder, licence=_OFL,
                is_heldout=is_heldout, weight=weight, extra=extra, tall=_TALL.get(scripts, "bdgpqlAÉ"),
            ),
            tuple(scripts.split()),
        )
        for file in files.split()
        for weight in weights
    ]  # fmt: skip


def _noto(script: str, name: str, pack: str, axes: str = "wdth,wght") -> list[tuple[Font, tuple[str, ...]]]:
    """Return Noto Sans of one script, regular and bold, as the JustMyType packages hold it."""
    return _world(
        f"Noto Sans {name}", "sans", f"justmytype_intl_{pack}", f"NotoSans{name}[{axes}].ttf", script,
        folder=f"fonts/ofl/notosans{name.lower()}", weights=(400, 700),
    )  # fmt: skip


# Kurinto Sans prints nearly every script, so it is what the scripts are examined with. Syriac has
# no other family on the package index: there it trains, and the held-out one is a system font.
WORLD: tuple[tuple[Font, tuple[str, ...]], ...] = (
    *_world("Noto Sans", "sans", "fontpkg_noto_sans", "NotoSans[wdth,wght].ttf NotoSans-Italic[wdth,wght].ttf",
            "Latn Cyrl", weights=(400, 700)),
    *_world("Noto Serif", "serif", "fontpkg_noto_serif", "NotoSerif[wdth,wght].ttf NotoSerif-Italic[wdth,wght].ttf",
            "Latn Cyrl", weights=(400, 700)),
    *_world("Open Sans", "sans", "fontpkg_open_sans", "OpenSans[wdth,wght].ttf", "Latn Cyrl", weights=(400, 700)),
    *_world("PT Sans", "sans", "fontpkg_pt_sans", "PT_Sans-Web-Regular.ttf PT_Sans-Web-Bold.ttf "
            "PT_Sans-Web-Italic.ttf", "Latn Cyrl", is_heldout=True),
    *_noto("Arab", "Arabic", "rtl"),
    *_world("Amiri", "serif", "fontpkg_amiri", "Amiri-Regular.ttf Amiri-Bold.ttf", "Arab"),
    *_world("Noto Kufi Arabic", "display", "fontpkg_noto_kufi_arabic", "NotoKufiArabic[wght].ttf", "Arab",
            weights=(400, 700)),
    *_world("Tajawal", "sans", "fontpkg_tajawal", "Tajawal-Regular.ttf Tajawal-Medium.ttf Tajawal-Bold.ttf", "Arab",
            is_heldout=True),
    *_noto("Deva", "Devanagari", "south_asia"),
    *_world("Mukta", "sans", "fontpkg_mukta", "Mukta-Regular.ttf Mukta-Medium.ttf Mukta-Bold.ttf", "Deva"),
    *_world("Hind", "sans", "fontpkg_hind", "Hind-Regular.ttf Hind-Medium.ttf Hind-Bold.ttf", "Deva", is_heldout=True),
    *_noto("Beng", "Bengali", "south_asia"),
    *_world("Hind Siliguri", "sans", "fontpkg_hind_siliguri", "HindSiliguri-Regular.ttf HindSiliguri-Bold.ttf",
            "Beng", is_heldout=True),
    *_noto("Thai", "Thai", "sea"),
    *_world("Sarabun", "sans", "fontpkg_sarabun", "Sarabun-Regular.ttf Sarabun-Italic.ttf Sarabun-Bold.ttf", "Thai"),
    *_world("Kanit", "sans", "fontpkg_kanit", "Kanit-Regular.ttf Kanit-Medium.ttf", "Thai", is_heldout=True),
    *_noto("Mymr", "Myanmar", "sea"),
    *_world("Noto Serif Myanmar", "serif", "fonts-noto-core", "NotoSerifMyanmar-Regular.ttf NotoSerifMyanmar-Bold.ttf",
            "Mymr", folder="", is_heldout=True, extra="debian"),
    *_noto("Hans", "SC", "cjk", "wght"),
    *_noto("Jpan", "JP", "cjk", "wght"),
    *_noto("Kore", "KR", "cjk", "wght"),
    *_world("Kurinto Sans SC", "sans", "weblate_fonts", "KurintoSansSC-Rg.ttf KurintoSansSC-Bd.ttf", "Hans",
            folder=_KURINTO, is_heldout=True),
    *_world("Kurinto Sans JP", "sans", "weblate_fonts", "KurintoSansJP-Rg.ttf KurintoSansJP-Bd.ttf", "Jpan",
            folder=_KURINTO, is_heldout=True),
    *_world("Kurinto Sans KR", "sans", "weblate_fonts", "KurintoSansKR-Rg.ttf KurintoSansKR-Bd.ttf", "Kore",
            folder=_KURINTO, is_heldout=True),
    *_world("Kurinto Sans", "sans", "weblate_fonts", "KurintoSans-Rg.ttf KurintoSans-Bd.ttf",
            "Latn Cyrl Armn Geor Arab Deva Beng Thai", folder=_KURINTO, is_heldout=True),
    *_world("Kurinto Sans", "sans", "weblate_fonts", "KurintoSans-Rg.ttf KurintoSans-Bd.ttf", "Syrc",
            folder=_KURINTO),
    *_world("Noto Sans Syriac", "sans", "fonts-noto-core", "NotoSansSyriac-Regular.ttf", "Syrc", folder="",
            is_heldout=True, extra="debian"),
)  # fmt: skip


@lru_cache
def fonts_for(script: str, letters: frozenset[str], split: str) -> tuple[Font, ...]:
    """Return the fonts of a split that have every one of these letters.

    Latin scripts that the fonts of English cover need no more than those. Every other script
    needs all fonts of its list: with some of them the same seed would draw other pictures.

    Raises:
        NeedsExtra: the package of a font is not installed.
        DataError: a system font is not installed, or no font of the split has the letters.
    """
    is_heldout = split == "heldout"
    own = tuple(font for font, scripts in WORLD if script in scripts and font.is_heldout == is_heldout)
    plain = tuple(font for font in FONTS if font.is_heldout == is_heldout and has_letters(font, letters))
    if script in ("Latn", "Cyrl", "Armn", "Geor") and {font.family for font in plain} >= _enough(script, is_heldout):
        return plain
    found = plain + tuple(font for font in own if has_letters(font, letters))
    if not found:
        raise DataError(f"no font of the split '{split}' prints the script {script}; known: {_names(script)}")
    return found


def _enough(script: str, is_heldout: bool) -> set[str]:
    """Return families which, where they all print a language, are enough for it."""
    if script in ("Armn", "Geor"):
        return {"none"} if is_heldout else {"DejaVu Sans"}
    return {"Lato", "Caladea"} if is_heldout else {"Roboto", "Source Sans Pro"}


def _names(script: str) -> str:
    return ", ".join(sorted({font.family for font, scripts in WORLD if script in scripts})) or "none"


@lru_cache(maxsize=4096)
def has_letters(font: Font, letters: frozenset[str]) -> bool:
    """True where the font's character map has every letter."""
    have = _map_of(font)
    return all(letter in have for letter in letters)


@lru_cache(maxsize=256)
def _map_of(font: Font) -> frozenset[str]:
    try:
        import freetype
    except ImportError:
        raise NeedsExtra("languages beside English (freetype-py)", "data") from None
    face = freetype.Face(str(font_path(font)))
    return frozenset(chr(code) for code, _ in face.get_chars()) | {" "}
