"""A hook of mkdocs: pages of ``docs/`` that the navigation of ``mkdocs.yml`` does not name come under "More"."""

from pathlib import Path
from typing import Any


def named(nav: Any) -> set[str]:
    """Return the files that a navigation names.

    >>> sorted(named([{"Home": "index.md"}, {"Use": [{"API": "api.md"}]}]))
    ['api.md', 'index.md']
    """
    if isinstance(nav, str):
        return {nav}
    parts = nav.values() if isinstance(nav, dict) else nav
    return set().union(*map(named, parts))


def on_config(config: Any) -> Any:
    """Add what is missing to the navigation."""
    docs = Path(config["docs_dir"])
    known = named(config["nav"])
    decisions = sorted(f"decisions/{file.name}" for file in (docs / "decisions").glob("[0-9]*.md"))
    more = sorted(file.name for file in docs.glob("*.md") if file.name not in known)
    about = next(part["About"] for part in config["nav"] if "About" in part)
    about[-1] = {"Decisions": ["decisions/README.md", *decisions]}
    if more:
        config["nav"].insert(-1, {"More": more})
    return config
