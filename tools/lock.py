"""Write requirements.lock: the newest versions that pyproject.toml allows, for every system and Python of the course.

Needs uv. Environment variables and configuration files that point uv at other sources are left out, so that
the lock does not depend on the machine it was made on.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND = (
    "pip compile --quiet --no-config --upgrade --universal --fork-strategy fewest --python-version 3.11 --all-extras "
    "--no-emit-index-url --output-file requirements.lock pyproject.toml"
)


def main() -> None:
    """Run uv, if it is there."""
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv is None:
        sys.exit("make lock needs uv: python -m pip install uv")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    environment["UV_CUSTOM_COMPILE_COMMAND"] = "make lock"
    subprocess.run([uv, *COMMAND.split()], cwd=ROOT, env=environment, check=True)


if __name__ == "__main__":
    main()
