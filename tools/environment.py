"""Write environment.yml, the conda way in, from pyproject.toml.

    python tools/environment.py            writes the file
    python tools/environment.py --check    fails if the file is not what would be written

Conda brings Python; pip brings the rest, held by requirements.lock to the versions that were tested.
"""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "environment.yml"


def environment(project: dict) -> str:
    """The text of environment.yml for the ``[project]`` table of pyproject.toml."""
    lines = [
        "# Made by tools/environment.py from pyproject.toml; a change here is lost.",
        "#   conda env create -f environment.yml",
        "#   conda activate model-compression-course",
        f"name: {project['name']}",
        "channels:",
        "  - conda-forge",
        "dependencies:",
        f"  - python{project['requires-python']}",
        "  - pip",
        "  - pip:",
        "      - --constraint requirements.lock",
    ]
    lines += [f"      - {requirement}" for requirement in project["dependencies"]]
    for extra, requirements in project["optional-dependencies"].items():
        lines.append(f"      # {extra}")
        lines += [f"      - {requirement}" for requirement in requirements]
    lines.append("      - --editable .")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write or check the file; the answer is the exit status."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = environment(project)
    if "--check" in arguments:
        same = TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text
        if not same:
            print("environment.yml is not what pyproject.toml makes: run python tools/environment.py", file=sys.stderr)
        return 0 if same else 1
    TARGET.write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
