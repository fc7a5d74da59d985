"""The door to megatron-energon: shards prepared for its loader, rows filled by our packing.

Boundary: folders of shards in, its savable loader out. Our own training reads ``stream``, which goes on exactly with
another number of workers too; energon's state holds for the same ranks and workers only.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handlens.data.formats.shards import members_to_sample, shard_files
from handlens.data.pack import Budget, Length, pack
from handlens.data.samples import Sample
from handlens.errors import DataError, NeedsExtra, SettingError


@dataclass(kw_only=True)  # energon writes the keys of a row into it
class EnergonRow:
    """Samples that share one training row, with what energon needs to make the row again."""

    samples: tuple[Sample, ...]
    __key__: str
    __restore_key__: tuple[Any, ...]
    __subflavors__: dict[str, Any] | None = None
    __sources__: tuple[Any, ...] | None = None


def prepare(folder: Path | str) -> Path:
    """Write what energon keeps beside shards (``.nv-meta``: index, split, kind) and return that folder.

    Everything is the split ``train``. What was prepared before is written anew.

    Raises:
        DataError: no shards in the folder.
        NeedsExtra: megatron-energon is missing.
    """
    energon = _energon()
    root = Path(folder)
    files = shard_files(root)
    if not files:
        raise DataError(f"no shards (*.tar) in {root}; make some: handlens data convert {root} --to shards")
    names = [str(file.relative_to(root)) for file in files]
    energon.CrudeWebdataset.prepare_dataset(
        root.absolute(), names, split_parts_ratio=[("train", 1.0), ("val", 0.0), ("test", 0.0)], shuffle_seed=None,
        workers=1,
    )  # fmt: skip
    meta = root / ".nv-meta"
    (meta / "dataset.yaml").write_text("__module__: megatron.energon\n__class__: CrudeWebdataset\n", encoding="utf-8")
    return meta


def blend(folders: Mapping[Path | str, float], out: Path) -> Path:
    """Write prepared folders and their shares as one of energon's metadatasets, a YAML file.

    Raises:
        SettingError: no folder, or a share that is not above 0.
    """
    if not folders or min(folders.values()) <= 0:
        raise SettingError(f"a blend needs folders with shares above 0; given are {dict(folders)}")
    lines = ["__module__: megatron.energon", "__class__: MetadatasetV2", "splits:", "  train:", "    blend:"]
    for folder, share in folders.items():
        lines += [f"      - path: {os.path.abspath(folder)}", f"        weight: {share:g}"]  # noqa: PTH100
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return out


def packed_loader(
    path: Path | str,
    measure: Callable[[Sample], Length | None],
    *,
    budget: Budget | None = None,
    window: int = 128,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 1,
) -> Any:
    """Return energon's endless savable loader of ``EnergonRow`` from a prepared folder or a blend.

    ``measure`` is the room a sample takes, None to leave it out (``stream.measured_by``). ``save_state_rank`` and
    ``restore_state_rank`` of the loader go on exactly, with the same ranks, workers, budget and window.

    Raises:
        DataError: the folder is not prepared.
        NeedsExtra: megatron-energon is missing.
    """
    energon = _energon()
    where = Path(path)
    if not (where.is_file() or (where / ".nv-meta").is_dir()):
        raise DataError(f"{where} is not prepared for energon; call handlens.data.energon.prepare on it first")
    room = budget or Budget()
    keys = energon.basic_sample_keys

    @energon.stateless  # type: ignore[untyped-decorator]
    def cook(raw: dict[str, Any]) -> EnergonRow:
        members = [(name, data) for name, data in raw.items() if not name.startswith("__")]
        sample = members_to_sample(members, raw["__key__"])
        length = None if sample.faults else measure(sample)
        if length is None or not room.holds(length):
            raise energon.SkipSample
        return EnergonRow(samples=(sample,), **keys(raw))

    class Encoder(energon.DefaultTaskEncoder):  # type: ignore[name-defined]
        cookers = (energon.Cooker(cook),)
        decoder = None  # members stay bytes, as everywhere in ``data``

        def select_samples_to_pack(self, samples: list[EnergonRow]) -> list[list[EnergonRow]]:
            lengths = [length for row in samples if (length := measure(row.samples[0])) is not None]
            return [[samples[place] for place in sorted(places)] for places in pack(lengths, room).rows]

        @energon.stateless  # type: ignore[untyped-decorator]
        def pack_selected_samples(self, samples: Sequence[EnergonRow]) -> EnergonRow:
            return EnergonRow(
                samples=tuple(sample for row in samples for sample in row.samples),
                __key__=",".join(row.__key__ for row in samples),
                __restore_key__=(),
                __sources__=tuple(source for row in samples for source in row.__sources__ or ()),
            )

    config = energon.WorkerConfig(rank=rank, world_size=world_size, num_workers=workers, seed_offset=seed)
    rows = energon.get_train_dataset(
        where.absolute(), worker_config=config, batch_size=None, packing_buffer_size=window,
        shuffle_buffer_size=window, max_samples_per_sequence=None, task_encoder=Encoder(),
    )  # fmt: skip
    return energon.get_savable_loader(rows)


def _energon() -> Any:
    try:
        import megatron.energon
    except ImportError:
        raise NeedsExtra("the loader of megatron-energon", "energon") from None
    return megatron.energon
