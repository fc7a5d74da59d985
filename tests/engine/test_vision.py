"""A provider that fails is left for the processor, and that is said once."""

from pathlib import Path

import numpy as np
import pytest

from handlens import PACKAGED
from handlens.engine import say
from handlens.engine.bundle import Bundle
from handlens.engine.vision import OnnxVision, available_providers
from handlens.errors import ModelError


class Failing:
    """A session whose device went away."""

    def run(self, *_: object) -> None:
        raise RuntimeError("device lost\nat line 3")


def test_a_provider_that_fails_while_computing_is_replaced_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(say, "_said", set())
    bundle = Bundle.open(PACKAGED["nano"])
    half = OnnxVision(bundle.file(bundle.vision), bundle.config, threads=1)
    pixels = np.zeros((3, 28, 28), dtype=np.float32)
    expected = half.encode(pixels)
    half.provider, half._session = "cuda", Failing()
    np.testing.assert_array_equal(half.encode(pixels), expected)
    assert half.provider == "cpu"
    assert capsys.readouterr().err == "handlens: provider 'cuda' failed (device lost); going on with 'cpu'\n"
    half._session = Failing()
    with pytest.raises(ModelError, match=r"cannot be computed: device lost$"):
        half.encode(pixels)


def test_the_processor_is_always_there() -> None:
    assert "cpu" in available_providers()


def test_a_vision_half_of_another_model_is_refused(tmp_path: Path) -> None:
    import dataclasses

    bundle = Bundle.open(PACKAGED["nano"])
    config = bundle.config
    wider = dataclasses.replace(
        config,
        resampler=dataclasses.replace(config.resampler, width=512),
        language=dataclasses.replace(config.language, width=512),
    )
    with pytest.raises(ModelError, match=r"of width 256, the manifest says \d+ of 512; these halves do not belong"):
        OnnxVision(bundle.file(bundle.vision), wider, threads=1)
