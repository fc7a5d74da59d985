"""Two GGUF files as an ``Answerer``: llama.cpp cuts and sees with the mmproj file, and reads with the language file.

Boundary: prompts and choices are those of every other engine; how a picture is cut is llama.cpp's own, which differs
from the released code for some sizes (docs/families.md).
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from handlens.answerer import ModelInfo, Seen, SeenPicture
from handlens.core.images import Picture
from handlens.core.slicing import Grid, SlicePlan, fit_area, plan_slices
from handlens.engine.answerer import LanguageHalf, Lens, times_of
from handlens.engine.mtmd import MtmdVision
from handlens.engine.room import Room
from handlens.engine.setup import Setup
from handlens.errors import SettingError
from handlens.families import family_named

if TYPE_CHECKING:
    from handlens.core.tokenizer import AnyTokenizer
    from handlens.export.llama_cpp import GgufFolder

ENGINE = "llama.cpp"


def open_pair(path: Path | str, *, keep: bool = False, threads: int | None = None) -> "PairLens":
    """Return a folder with a language GGUF and an mmproj GGUF, or the path of such a language file, as an ``Answerer``.

    Raises:
        ModelError: a file is missing or cut, the two do not belong together, or there is no tokenizer.
    """
    from handlens.export.llama_cpp import GgufFolder
    from handlens.verify.device_side import quant_of

    files = GgufFolder.open(Path(path))
    config = files.config
    info = ModelInfo(
        name=Path(path).resolve().stem if Path(path).is_file() else Path(path).resolve().name,
        family=config.family,
        engine=ENGINE,
        num_queries=config.resampler.num_queries,
        side_px=config.slicing.side_px,
        max_slices=family_named(config.family).max_slices,
        quantisation=quant_of(files.language),
    )

    def open_language(room: Room) -> LanguageHalf:
        from handlens.engine.belong import check_room
        from handlens.engine.language import LlamaCppLanguage

        check_room(files.language.stat().st_size, f"the language file {files.language}")
        return LlamaCppLanguage(files.language, room, threads=threads, setup=Setup())

    return PairLens(
        info,
        family_named(config.family),
        find_tokenizer(files),
        lambda: MtmdVision(files.mmproj, files.language, threads=threads),  # type: ignore[arg-type, return-value]
        open_language,
        max_positions=config.language.max_positions,
        keep=keep,
    )


def find_tokenizer(files: "GgufFolder") -> "AnyTokenizer":
    """Return ``tokenizer.json`` beside the files, or the vocabulary of the language file.

    Raises:
        ModelError: the vocabulary has no text, or is of an unknown kind.
    """
    from handlens.core.tokenizer import Tokenizer
    from handlens.export.gguf_tokenizer import read_tokenizer

    return Tokenizer.from_file(files.tokenizer) if files.tokenizer else read_tokenizer(files.language)


class PairLens(Lens):
    """Sees whole pictures, because llama.cpp cuts them itself."""

    def see(self, images: Sequence[Picture], *, max_slices: int | None = None) -> Seen:
        """Encode pictures once.

        Raises:
            ImageError: a picture has no pixels.
            SettingError: another number of slices than one or the family's, which llama.cpp cannot be told.
        """
        if max_slices not in (None, 1, self.info.max_slices):
            raise SettingError(
                f"max_slices is {max_slices}; llama.cpp cuts into 1 or at most {self.info.max_slices} slices; give one "
                "of them, or use a bundle or a torch model"
            )
        if not images:
            return Seen(pictures=())
        began = time.perf_counter()
        pictures: list[SeenPicture] = []
        with self._vision_half() as half:
            loaded = time.perf_counter()
            for picture in images:
                side = self.info.side_px
                # A picture that is no larger than a slice is not cut.
                image = picture.image.resize((side, side)) if max_slices == 1 else picture.image
                parts = cast("MtmdVision", half).encode(image)
                plan = plan_of(*picture.image.size, len(parts), side_px=side)
                tokens = np.stack(parts)
                pictures.append(
                    SeenPicture(name=picture.name, plan=plan, visual_tokens=tokens, times=times_of(picture))
                )
        seconds = {"load_vision": loaded - began, "encode": time.perf_counter() - loaded}
        return Seen(pictures=tuple(pictures), seconds=seconds)


def plan_of(width_px: int, height_px: int, num_slices: int, *, side_px: int) -> SlicePlan:
    """Return the plan of a picture that was cut into ``num_slices``, overview included.

    Both codes choose the grid whose cells are least stretched; they differ in how many slices a picture wants.

    >>> plan_of(460, 300, 3, side_px=448).grid
    Grid(columns=2, rows=1)
    """
    plan = plan_slices(width_px, height_px, side_px=side_px)
    if plan.num_slices == num_slices:
        return plan
    if num_slices == 1:
        return replace(plan_slices(width_px, height_px, side_px=side_px, max_slices=1), overview=(side_px, side_px))
    cells = num_slices - 1
    shape = math.log(width_px / height_px)
    grid = min(
        (Grid(columns, cells // columns) for columns in range(1, cells + 1) if cells % columns == 0),
        key=lambda grid: abs(shape - math.log(grid.columns / grid.rows)),
    )
    patch_px = plan.patch_px
    cell = fit_area(width_px / grid.columns, height_px / grid.rows, side_px=side_px, patch_px=patch_px, enlarge=True)
    overview = fit_area(width_px, height_px, side_px=side_px, patch_px=patch_px, enlarge=False)
    return replace(plan, grid=grid, overview=overview, refined=(cell[0] * grid.columns, cell[1] * grid.rows))
