"""Make .venv, put the tested versions of requirements.lock into it, and the course itself.

    python3 tools/make_venv.py

The Makefile runs it whenever the lock or pyproject.toml is newer than .venv/.ready. It uses nothing but Python's
own library, and reads so that an old Python gets as far as saying that it is too old.
"""

import os
import subprocess
import sys

FIRST, LAST = (3, 11), (3, 13)
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


def say(text):
    """Print at once: pip's own lines follow."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def make_environment():
    """Create .venv if it is not there or does not start."""
    if os.path.exists(PYTHON) and subprocess.call([PYTHON, "-c", "import pip"]) == 0:
        return
    import venv

    say("Making .venv with " + sys.executable)
    try:
        venv.create(VENV, clear=True, with_pip=True)
    except subprocess.CalledProcessError:
        sys.exit("Python cannot make a virtual environment. On Debian and Ubuntu: sudo apt install python3-venv")


def install():
    """Install the lock, then the course without looking for dependencies again."""
    pip = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install"]
    say("Installing the tested versions: a few minutes, and on Linux 6 GB")
    for arguments in (["-r", "requirements.lock"], ["--quiet", "--no-deps", "--no-build-isolation", "-e", "."]):
        if subprocess.call(pip + arguments, cwd=ROOT) != 0:
            sys.exit("The installation broke off; the lines above say why. The same command goes on from here.")


def main():
    check_version(sys.version_info)
    make_environment()
    install()
    with open(os.path.join(VENV, ".ready"), "w") as stamp:
        stamp.write("made by tools/make_venv.py\n")


if __name__ == "__main__":
    main()
