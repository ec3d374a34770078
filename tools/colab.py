"""Put a link that opens it in Colab beside every lesson of the README's syllabus.

    python tools/colab.py OWNER/NAME      where your copy of the course is on GitHub

Until then the README has none: a link can only lead to a copy that is there.
"""

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
LESSON = re.compile(r"(\]\((notebooks/\d\d_\w+\.ipynb)\))(?: · \[Colab\]\(\S+\))?(?= \|)")
CLONE = re.compile(r"(?<=git clone --depth 1 https://github\.com/)\S+")


def with_links(readme: str, repository: str) -> str:
    """The README's text with the links to ``repository``, in place of those that it had."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"repository is {repository!r}; expected OWNER/NAME, as GitHub writes it")
    base = f"https://colab.research.google.com/github/{repository}/blob/main"
    return CLONE.sub(repository, LESSON.sub(rf"\1 · [Colab]({base}/\2)", readme))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/colab.py OWNER/NAME")
    README.write_text(with_links(README.read_text(encoding="utf-8"), sys.argv[1]), encoding="utf-8", newline="\n")
