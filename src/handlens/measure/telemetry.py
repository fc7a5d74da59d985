"""Switch off what libraries tell their makers; Handlens itself counts and sends nothing.

Boundary: environment variables, set before a library is imported; a value that the user gave stays.
"""

import os

SWITCHES = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "ORT_DISABLE_TELEMETRY": "1",
}
"""Name of a variable -> the value that means "send nothing"."""


def switch_off() -> None:
    """Set every switch that the user did not set."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)


def left_on() -> list[str]:
    """Return the switches that are not set to "send nothing".

    >>> switch_off()
    >>> left_on()
    []
    """
    silent = {"1": {"1", "true", "yes", "on"}, "0": {"0", "false", "no", "off"}}
    return [name for name, value in SWITCHES.items() if os.environ.get(name, "").lower() not in silent[value]]
