"""Write tools/results/README.md from the JSON files beside it.

    python -m tools.results

Every table of the page names the command that makes its file. Run this after any of them.
"""

from __future__ import annotations

from tools.results.page import FILE, page

if __name__ == "__main__":
    FILE.write_text(page())
