"""One line on stderr, said once: what a user should know although the run goes on.

Boundary: stderr; messages are whole sentences in the form of the errors.
"""

import sys

_said: set[str] = set()


def say_once(line: str) -> None:
    """Print a line unless this process printed it before."""
    if line not in _said:
        _said.add(line)
        sys.stderr.write(f"handlens: {line}\n")
