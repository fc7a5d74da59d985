"""``python -m handlens``: the command line, where the program is not on the path.

Boundary: hands over to ``cli/main.py``.
"""

from handlens.cli.main import main

if __name__ == "__main__":
    main()
