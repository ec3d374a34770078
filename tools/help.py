"""Print the Makefile's targets and what each does."""

import re
from pathlib import Path

makefile = (Path(__file__).resolve().parents[1] / "Makefile").read_text(encoding="utf-8")
for target, meaning in re.findall(r"^([a-z]+):.*?## (.+)$", makefile, re.MULTILINE):
    print(f"make {target:12} {meaning}")
