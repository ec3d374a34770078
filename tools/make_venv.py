"""Make .venv, with the course and the tested versions of what it needs.

    python3 tools/make_venv.py          what the lessons and the exercises need
    python3 tools/make_venv.py --all    and what grading, benchmarks and tests need

uv installs it if it is on the search path, otherwise pip does. Both take pyproject.toml for what is needed and
requirements.lock for the versions. The Makefile runs this whenever one of the two is newer than .venv/.ready, or
.venv/.ready-all with --all. It uses nothing but Python's own library, and reads so that an old Python gets as far as
saying that it is too old.
"""

import os
import shutil
import subprocess
import sys

FIRST, LAST = (3, 11), (3, 13)
EXTRAS = "classroom,compare,dev"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "Scripts", "python.exe") if os.name == "nt" else os.path.join(VENV, "bin", "python")


def check_version(version):
    """Leave with a line that says what to do unless ``version`` (major, minor, ...) can run the course."""
    if not FIRST <= tuple(version[:2]) <= LAST:
        message = (
            "The course needs Python {}.{} to {}.{}; {} is Python {}.{}. "
            "Install one of those and name it: make PYTHON=python{}.{}"
        )
        sys.exit(message.format(*(FIRST + LAST + (sys.executable,) + tuple(version[:2]) + LAST)))


def check_torch_backend(uv, environment):
    """Leave with a line that says what to do if another build of PyTorch is asked for and only uv could find it."""
    if environment.get("UV_TORCH_BACKEND") and not uv:
        sys.exit("UV_TORCH_BACKEND is a setting of uv, and uv is not here. Install uv, or see the README for pip.")


def make_environment(uv):
    """Create .venv if it is not there or does not start."""
    if os.path.exists(PYTHON) and subprocess.call([PYTHON, "-c", "import pip"]) == 0:
        return
    say("Making .venv with " + sys.executable)
    command = [sys.executable, "-m", "venv", "--clear", VENV]
    if uv:  # with pip in it: a learner may want to install more
        command = [uv, "venv", "--quiet", "--clear", "--seed", "--python", sys.executable, VENV]
    if subprocess.call(command) != 0:
        sys.exit("Python cannot make a virtual environment. On Debian and Ubuntu: sudo apt install python3-venv")


def install_command(uv, everything):
    """The command that puts the course and what it needs into .venv; the lock only says which version of it."""
    installer = [uv, "pip", "install", "--python", PYTHON] if uv else [PYTHON, "-m", "pip", "install"]
    return installer + ["-c", "requirements.lock", "-e", ".[" + EXTRAS + "]" if everything else "."]


def say(text):
    """Print at once: the installer's own lines follow."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments):
    if arguments not in ([], ["--all"]):
        sys.exit("usage: python3 tools/make_venv.py [--all]")
    check_version(sys.version_info)
    uv = shutil.which("uv")
    check_torch_backend(uv, os.environ)
    make_environment(uv)
    say("Installing with {}: a few minutes, and on Linux 6 GB".format("uv" if uv else "pip"))
    if subprocess.call(install_command(uv, bool(arguments)), cwd=ROOT) != 0:
        sys.exit("The installation broke off; the lines above say why. The same command goes on from here.")
    for stamp in [".ready"] + [".ready-all"] * len(arguments):
        with open(os.path.join(VENV, stamp), "w") as file:
            file.write("made by tools/make_venv.py\n")


if __name__ == "__main__":
    main(sys.argv[1:])
