"""The fonts that generated text is set in, and which of them training never sees.

Boundary: finds font files inside installed packages; knows nothing about layout.
"""

import importlib.util
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

from handlens.errors import DataError, NeedsExtra

CHARACTERS = "".join(map(chr, range(32, 127))) + "€£°–éüßñ"
"""Every character that a generated English picture may print."""


@dataclass(frozen=True, kw_only=True, eq=False)  # one object per file: a cheap cache key
class Font:
    """One font file; ``style`` is sans, serif, mono or display.

    ``weight`` is 0 for a plain file and the weight to take from a variable one. ``extra`` names
    what installs the font: an extra of this package, or ``debian`` for a system package. ``tall``
    is a text that reaches as high and as low as its script does.
    """

    family: str
    style: str
    file: str
    package: str
    folder: str
    licence: str
    is_heldout: bool
    weight: int = 0
    extra: str = "data"
    tall: str = "bdgpqlAÉ"


def _family(
    family: str, style: str, package: str, licence: str, files: str,
    *, folder: str = "files", is_heldout: bool = False,
) -> list[Font]:  # fmt: skip
    return [
        Font(
            family=family, style=style, file=file, package=package,
            folder=folder, licence=licence, is_heldout=is_heldout,
        )
        for file in files.split()
    ]  # fmt: skip


def _weights(stem: str, weights: str, ending: str = "ttf") -> str:
    return " ".join(f"{stem}-{weight}.{ending}" for weight in weights.split())


_OFL = "OFL-1.1"
_VERA = "Bitstream-Vera"
_MPL = "mpl-data/fonts/ttf"

# Hairline weights are left out: at 8 px they fade to nothing. Source Serif comes as otf: the
# hints of its ttf files shrink the advance of % to a sixth.
FONTS: tuple[Font, ...] = (
    *_family("Roboto", "sans", "font_roboto", "Apache-2.0", _weights(
        "Roboto", "Regular Italic Light LightItalic Medium MediumItalic Bold BoldItalic Black")),
    *_family("Source Sans Pro", "sans", "font_source_sans_pro", _OFL, _weights(
        "SourceSansPro", "Regular It Light Semibold SemiboldIt Bold BoldIt Black")),
    *_family("Source Serif Pro", "serif", "font_source_serif_pro", _OFL, _weights(
        "SourceSerifPro", "Regular It Light LightIt Semibold SemiboldIt Bold BoldIt Black", "otf")),
    *_family("Manrope", "sans", "font_manrope", _OFL, _weights(
        "Manrope", "Regular Light Medium SemiBold Bold ExtraBold")),
    *_family("Red Hat Display", "sans", "font_rhd", _OFL, _weights(
        "RedHatDisplay", "Regular Italic Light Medium MediumItalic SemiBold Bold BoldItalic Black")),
    *_family("Fredoka One", "display", "font_fredoka_one", _OFL, "FredokaOne-Regular.ttf"),
    *_family("Fjalla One", "display", "font_fjallaone", _OFL, "FjallaOne-Regular.ttf"),
    *_family("DejaVu Sans", "sans", "matplotlib", _VERA, (
        "DejaVuSans.ttf DejaVuSans-Bold.ttf DejaVuSans-Oblique.ttf DejaVuSans-BoldOblique.ttf"),
        folder=_MPL),
    *_family("DejaVu Sans Mono", "mono", "matplotlib", _VERA, (
        "DejaVuSansMono.ttf DejaVuSansMono-Bold.ttf DejaVuSansMono-Oblique.ttf "
        "DejaVuSansMono-BoldOblique.ttf"), folder=_MPL),
    *_family("STIX General", "serif", "matplotlib", _OFL, (
        "STIXGeneral.ttf STIXGeneralBol.ttf STIXGeneralItalic.ttf STIXGeneralBolIta.ttf"),
        folder=_MPL),
    *_family("Lato", "sans", "font_lato", _OFL, _weights(
        "Lato", "Regular Italic Light Bold BoldItalic Black"), is_heldout=True),
    *_family("Hanken Grotesk", "sans", "font_hanken_grotesk", _OFL, _weights(
        "HankenGrotesk", "Regular Italic Medium SemiBold Bold BoldItalic", "otf"),
        is_heldout=True),
    *_family("Caladea", "serif", "font_caladea", "Apache-2.0", _weights(
        "Caladea", "Regular Italic Bold BoldItalic"), is_heldout=True),
    *_family("DejaVu Serif", "serif", "matplotlib", _VERA, (
        "DejaVuSerif.ttf DejaVuSerif-Bold.ttf DejaVuSerif-Italic.ttf DejaVuSerif-BoldItalic.ttf"),
        folder=_MPL, is_heldout=True),
    *_family("IBM Plex Mono", "mono", "fontpkg_ibm_plex_mono", _OFL, _weights(
        "IBMPlexMono", "Regular Italic Medium SemiBold Bold"), is_heldout=True),
)  # fmt: skip


@lru_cache
def fonts_of(split: str, styles: tuple[str, ...] = ()) -> tuple[Font, ...]:
    """Return the fonts a split may use, of the given styles where it has any of them."""
    mine = tuple(font for font in FONTS if font.is_heldout == (split == "heldout"))
    return tuple(font for font in mine if font.style in styles) or mine


@lru_cache
def font_path(font: Font) -> Path:
    """Return the font's file.

    Raises:
        NeedsExtra: its package is not installed.
        DataError: a system font is not installed, or the package is there and the file is not.
    """
    if font.extra == "debian":
        return _system_path(font)
    package = font.package.replace("_", "-")
    spec = importlib.util.find_spec(font.package)
    places = [*(spec.submodule_search_locations or ()), spec.origin] if spec is not None else []
    if not places:
        raise NeedsExtra(f"the font {font.family} ({package})", font.extra)
    root = Path(str(places[0]))
    path = (root if root.is_dir() else root.parent) / font.folder / font.file
    if not path.is_file():
        raise DataError(
            f"font file {font.file} is not in the package {package}; reinstall it: "
            f"pip install --force-reinstall {package}"
        )
    return path


SYSTEM_FOLDERS = ("/usr/share/fonts/truetype/noto", "/usr/share/fonts/noto", "/usr/local/share/fonts")
"""Where a system keeps Noto fonts; HANDLENS_FONTS names another folder, which comes first."""


def _system_path(font: Font) -> Path:
    own = os.environ.get("HANDLENS_FONTS")
    for folder in (*((own,) if own else ()), *SYSTEM_FOLDERS):
        path = Path(folder) / font.file
        if path.is_file():
            return path
    raise DataError(
        f"the font {font.family} ({font.file}) is not on this machine; install it: apt install {font.package}, "
        "or set HANDLENS_FONTS to its folder"
    )


@lru_cache(maxsize=2048)
def load_font(font: Font, size_px: int) -> ImageFont.FreeTypeFont:
    """Open a font at one size; the basic layout gives the same advances on every machine."""
    face = ImageFont.truetype(str(font_path(font)), size_px, layout_engine=ImageFont.Layout.BASIC)
    if font.weight:
        axes = {axis["name"]: axis for axis in face.get_variation_axes()}
        weighted = [font.weight if name in (b"Weight", "Weight") else axis["default"] for name, axis in axes.items()]
        face.set_variation_by_axes([float(value or 0) for value in weighted])
    return face


@lru_cache
def missing_characters(font: Font) -> frozenset[str]:
    """Return the members of ``CHARACTERS`` that the font draws as its empty box."""
    face = load_font(font, 40)

    def look(char: str) -> tuple[tuple[int, int], bytes]:
        mask = face.getmask(char)
        return mask.size, bytes(mask)

    absent = look("\U0010ffff")
    return frozenset(char for char in CHARACTERS if char != " " and look(char) == absent)
