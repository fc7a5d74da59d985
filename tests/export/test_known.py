"""Every exported bundle carries its known answers."""

from collections.abc import Callable
from pathlib import Path

from handlens.measure.known import check_known, read_known


def test_an_exported_bundle_knows_its_answers(bundle_of: Callable[..., Path]) -> None:
    folder = bundle_of("Q8_0")
    assert read_known(folder) is not None
    assert {station.status for station in check_known(folder)[0]} == {"same"}
