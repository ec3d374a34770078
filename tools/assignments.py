"""Make assignments/ from solutions/ with nbgrader: answers, hidden tests, mark schemes and outputs are left out.

Usage: python tools/assignments.py [--to FOLDER]
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbgrader.apps import NbGraderAPI
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[1]


def generate(target: Path, source: Path = ROOT / "solutions") -> list[Path]:
    """Write the student's version of every notebook in `source` to `target`, replacing what is there.

    The gradebook that nbgrader needs for this lives in a temporary folder: making assignments does not touch a class's.

    Returns:
        The files written.

    Raises:
        RuntimeError: nbgrader refused a notebook.
    """
    # nbgrader calls the program alembic, which lies beside Python also where the environment is not activated.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    names = sorted(folder.name for folder in source.iterdir() if any(folder.glob("*.ipynb")))
    with tempfile.TemporaryDirectory() as scratch:
        config = Config()
        config.CourseDirectory.root = scratch
        config.CourseDirectory.source_directory = "source"
        config.CourseDirectory.release_directory = "release"
        config.GenerateAssignment.permissions = 644
        shutil.copytree(source, Path(scratch) / "source", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
        api = NbGraderAPI(config=config)
        for name in names:
            result = api.generate_assignment(name)
            if not result["success"]:
                raise RuntimeError(f"nbgrader cannot make {name}:\n{result['log']}\n{result.get('error', '')}")
            shutil.rmtree(target / name, ignore_errors=True)
            shutil.copytree(Path(scratch) / "release" / name, target / name)
    files = sorted(path for name in names for path in (target / name).rglob("*") if path.is_file())
    for path in files:
        if path.suffix == ".ipynb":
            _normalise(path)
    return files


def _normalise(path: Path) -> None:
    """Change the notebook in place: the same source gives the same bytes everywhere."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec", "language_info")}
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=ROOT / "assignments")
    for path in generate(parser.parse_args().to):
        print(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
