"""``handlens npu``: the vision half in a fixed shape and few bits, for a neural processor."""

import json
import time
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("model", default="nano")
@click.option("--to", "out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write.")
@click.option("--patches", type=click.IntRange(1, 16_384), default=288, show_default=True, help="Size of the bucket.")
@click.option(
    "--slices", type=click.IntRange(1, 40), default=16, show_default=True, help="Drawn slices that set ranges."
)
@click.option("--check", type=click.IntRange(0, 40), default=4, show_default=True, help="Drawn slices to compare on.")
@click.option(
    "--provider", default="cpu", show_default=True, help="Where to run the bucket: cpu, qnn, openvino, coreml."
)
@click.option("--soc-model", type=int, help="Also compile for this Snapdragon; 57 is the 8 Gen 3.")
@click.option("--htp-arch", type=int, default=75, show_default=True, help="Its processor's generation.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def npu(
    model: str,
    out: Path,
    patches: int,
    slices: int,
    check: int,
    provider: str,
    soc_model: int | None,
    htp_arch: int,
    as_json: bool,
) -> None:
    """Write the vision half for a neural processor, and compare it with the full one.

    \b
    handlens npu nano --to nano-npu
    handlens npu nano --to nano-npu --provider qnn --check 1 --soc-model 57

    Activations get 16 bits, weights 8, their ranges come from drawn pictures (extra 'data'). With the package
    onnxruntime-qnn, provider qnn is the processor of a Snapdragon, and on other machines its simulator, which takes
    seconds for a slice.
    """  # noqa: D301
    import itertools

    from handlens.engine.bucket import BucketVision, bucket_files, write_context
    from handlens.engine.bundle import Bundle
    from handlens.errors import NeedsExtra
    from handlens.models.store import find_model

    try:
        from handlens.export.npu import write_bucket
        from handlens.export.vision_variants import calibration_feeds, calibration_pictures, slices_of
    except ModuleNotFoundError as cause:
        raise NeedsExtra(f"writing graphs ({cause.name} is missing)", "train") from None
    bundle = Bundle.open(find_model(model))
    graph = bundle.file(bundle.vision)
    out.mkdir(parents=True, exist_ok=True)
    feeds = itertools.islice(calibration_feeds(bundle.config), slices)
    file = write_bucket(graph, out, bundle.config, patches=patches, feeds=feeds)
    found: dict[str, Any] = {"file": str(file), "patches": patches, "provider": provider}
    if check:
        half = BucketVision(file, graph, bundle.config, provider=provider)
        pixels = list(itertools.islice(slices_of(calibration_pictures(), bundle.config), slices, slices + check))
        found |= _compare(half, graph, bundle.config, pixels)
    if soc_model is not None:
        context = write_context(file, out / f"{bucket_files(out, patches)[0].stem}-{soc_model}.onnx",
                                soc_model=soc_model, htp_arch=htp_arch)  # fmt: skip
        found["context"] = str(context)
    if as_json:
        click.echo(json.dumps(found))
        return
    if check:
        click.echo(
            f"agreement with the full vision half on {check} slices: cosine {found['cosine_mean']:.5f}, least "
            f"{found['cosine_min']:.5f}; {found['seconds_per_slice']:.2f} s a slice on {provider}; "
            f"{found['slices_outside']} did not fit",
            err=True,
        )
    click.echo(found.get("context", found["file"]))


def _compare(half: Any, graph: Path, config: Any, slices: Any) -> dict[str, Any]:
    import numpy as np

    from handlens.engine.vision import OnnxVision

    full = OnnxVision(graph, config)
    cosines: list[float] = []
    seconds = 0.0
    for pixels in slices:
        begin = time.perf_counter()
        ours = half.encode(pixels)
        seconds += time.perf_counter() - begin
        theirs = full.encode(pixels)
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        cosines += ((ours * theirs).sum(axis=1) / np.maximum(norms, 1e-12)).tolist()
    return {
        "cosine_mean": float(np.mean(cosines)),
        "cosine_min": float(np.min(cosines)),
        "seconds_per_slice": seconds / max(1, len(slices)),
        "slices_outside": half.num_outside,
    }
