"""What the course finds on this machine: ``python -m course_lib`` prints it as a table.

Every check answers with a ``Finding``. ``[OK]`` is there, ``[--]`` is missing and only some of the course needs it,
``[FAIL]`` means that the course cannot run; both of the latter come with the mend. Nothing here may need a package
to be whole: a check imports what it checks, and turns whatever goes wrong into a line.
"""

import importlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DISTRIBUTION = "model-compression-course"
PYTHONS = ((3, 11), (3, 13))
REINSTALL = "python -m pip install -c requirements.lock -e ."
REINSTALL_ALL = 'python -m pip install -c requirements.lock -e ".[classroom,compare,dev]"'

# What every lesson needs, as it is imported, and the name it is installed under.
NEEDED = {
    "numpy": "numpy",
    "torch": "torch",
    "sklearn": "scikit-learn",
    "matplotlib": "matplotlib",
    "safetensors": "safetensors",
    "accelerate": "accelerate",
    "tqdm": "tqdm",
    "ipywidgets": "ipywidgets",
    "ipykernel": "ipykernel",
    "jupyterlab": "jupyterlab",
}
# What only a part needs, and which part that is.
OPTIONAL = {"torchvision": ("torchvision", "the ResNet")}
# What no lesson and no exercise needs: `make test` installs it, `make lab` does not.
EXTRA = {
    "nbval": ("nbval", "make test"),
    "nbgrader": ("nbgrader", "grading a class"),
    "torchdistill": ("torchdistill", "make bench"),
}
# Slow to import, and no cause of trouble so far: it is enough that they are installed.
NOT_IMPORTED = {"jupyterlab", *EXTRA}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
BROWSER_FILES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
)


@dataclass(frozen=True)
class Finding:
    """One line of the table. ``mend`` says what to do, for everything but OK."""

    name: str
    status: Literal["OK", "--", "FAIL"]
    found: str
    mend: str = ""


def examine(*, quick: bool = False) -> list[Finding]:
    """Look at everything. ``quick`` imports PyTorch only and takes the other packages' word for it.

    Of what no lesson needs, a machine that was set up for the lessons is told only what it has.
    """
    findings = [check_python(), check_course()]
    wanted = [(module, distribution, None) for module, distribution in NEEDED.items()]
    wanted += [(module, distribution, purpose) for module, (distribution, purpose) in OPTIONAL.items()]
    for module, distribution, purpose in wanted:
        imported = module == "torch" if quick else module not in NOT_IMPORTED
        findings.append(check_package(module, distribution, imported=imported, only_for=purpose))
    findings += [check_widget_extension(), *check_device(), check_scale()]
    if not quick:
        findings.append(check_digits())
    extras, others = check_extras(), [*check_downloads(), check_browser()]
    if extras:
        return findings + extras + others
    set_up = Finding("set-up", "OK", "lessons and exercises; make test adds grading, benchmarks and tests")
    return findings + [set_up] + [finding for finding in others if finding.status == "OK"]


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """Python itself."""
    found = ".".join(map(str, version))
    if PYTHONS[0] <= version[:2] <= PYTHONS[1]:
        return Finding("python", "OK", found)
    return Finding("python", "FAIL", found, "make a new .venv with Python 3.11, 3.12 or 3.13")


def check_course() -> Finding:
    """The course's own package: lessons run in notebooks/ and must find it there."""
    try:
        return Finding("course_lib", "OK", importlib.metadata.version(DISTRIBUTION))
    except importlib.metadata.PackageNotFoundError:
        return Finding("course_lib", "FAIL", "not installed", "python -m pip install --no-deps -e .")


def check_package(module: str, distribution: str, *, imported: bool = True, only_for: str | None = None) -> Finding:
    """A package: there, in the range of pyproject.toml, and (if ``imported``) whole enough to import.

    ``only_for`` names what needs it; with it, a package that is missing or broken is no failure of the course.
    """
    bad: Literal["--", "FAIL"] = "--" if only_for else "FAIL"
    mend = (REINSTALL_ALL if module in EXTRA else REINSTALL) + (f" (needed for {only_for})" if only_for else "")
    try:
        if imported:
            importlib.import_module(module)
        elif importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError
        version = importlib.metadata.version(distribution)
    except (ModuleNotFoundError, importlib.metadata.PackageNotFoundError) as error:
        part = getattr(error, "name", None)
        found = "not installed" if part in (None, module, distribution) else f"broken: its part {part} is missing"
        return Finding(module, bad, found, mend)
    except Exception as error:  # a broken package may raise anything: OSError, AttributeError, RuntimeError
        reason = (str(error).splitlines() or [type(error).__name__])[0][:90]
        return Finding(module, bad, f"broken: {reason}", mend)
    allowed = _allowed_versions().get(distribution, "")
    if not _in_range(version, allowed):
        return Finding(module, bad, f"{version}, the course needs {allowed}", mend)
    return Finding(module, "OK", version)


def check_extras() -> list[Finding]:
    """What grading, benchmarks and tests need; nothing where none of it is there, for that is how a learner sets up."""
    findings = [check_package(name, package, imported=False, only_for=part) for name, (package, part) in EXTRA.items()]
    return [] if all(finding.found == "not installed" for finding in findings) else findings


def check_widget_extension(folders: Iterable[Path] | None = None) -> Finding:
    """The part of ipywidgets that runs in JupyterLab's page; without it a slider is a line of text."""
    name = "widget extension"
    if folders is None:
        try:
            from jupyter_core.paths import jupyter_path

            folders = [Path(folder) for folder in jupyter_path("labextensions")]
        except Exception:
            folders = []
    for folder in folders:
        package = folder / "@jupyter-widgets" / "jupyterlab-manager" / "package.json"
        if package.is_file():
            version = json.loads(package.read_text(encoding="utf-8"))["version"]
            return Finding(name, "OK", f"jupyterlab-manager {version}")
    return Finding(name, "--", "not in JupyterLab: sliders do not move", REINSTALL)


def check_device() -> list[Finding]:
    """Where the course computes, and on how many threads."""
    try:
        import torch

        from course_lib.device import pick_device

        device = pick_device()
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    except ValueError as error:
        return [Finding("device", "FAIL", str(error), "set COURSE_DEVICE to cpu, or unset it")]
    except Exception as error:
        return [Finding("device", "FAIL", f"PyTorch does not run: {type(error).__name__}", REINSTALL)]
    found = str(device) if name == device.type else f"{device} ({name})"
    return [
        Finding("device", "OK", found),
        Finding("threads", "OK", f"{torch.get_num_threads()} of {os.cpu_count()} processors"),
    ]


def check_scale(environment: Mapping[str, str] = os.environ) -> Finding:
    """How large the experiments are."""
    value = environment.get("COURSE_SCALE", "quick")
    if value in ("quick", "full"):
        return Finding("COURSE_SCALE", "OK", value)
    return Finding("COURSE_SCALE", "FAIL", repr(value), "set it to quick or full, or unset it")


def check_digits() -> Finding:
    """The data set that every lesson can fall back on: it comes with scikit-learn."""
    try:
        from sklearn.datasets import load_digits

        return Finding("data: digits", "OK", f"{len(load_digits().target):,} pictures, built in")
    except Exception as error:
        return Finding("data: digits", "FAIL", f"cannot be read: {type(error).__name__}", REINSTALL)


def check_downloads() -> list[Finding]:
    """The data sets that are downloaded at first use, or lie under ``COURSE_DATA``."""
    try:
        from course_lib.data.files import data_folders
        from course_lib.data.images import CIFAR10_FILE, IDX_FILES

        folders = data_folders()
    except Exception as error:
        return [Finding("data", "--", f"cannot look: {type(error).__name__}: {error}", REINSTALL)]
    files = {name: [file.path for file in needed] for name, needed in IDX_FILES.items()}
    files["cifar10"] = [CIFAR10_FILE.path]
    return [_look_for(name, paths, folders) for name, paths in files.items()]


def _look_for(name: str, paths: list[str], folders: list[Path]) -> Finding:
    missing = [path for path in paths if not any((folder / path).is_file() for folder in folders)]
    if not missing:
        home = next(folder for folder in folders if (folder / paths[0]).is_file())
        return Finding(f"data: {name}", "OK", str(home))
    mend = "downloaded at first use; without a network, point COURSE_DATA at a folder that holds " + missing[0]
    return Finding(f"data: {name}", "--", f"{len(missing)} of {len(paths)} files missing", mend)


def find_browser(environment: Mapping[str, str] = os.environ) -> str | None:
    """The path of a Chromium-like browser: ``COURSE_BROWSER``, the search path, the usual places."""
    given = environment.get("COURSE_BROWSER")
    if given:
        return given if Path(given).is_file() else None
    for name in BROWSERS:
        if path := shutil.which(name, path=environment.get("PATH")):
            return path
    return next((path for path in BROWSER_FILES if Path(path).is_file()), None)


def check_browser() -> Finding:
    """A browser that the tests of the widgets can drive. To read the course, any browser will do."""
    path = find_browser()
    if path:
        return Finding("browser", "OK", path)
    return Finding(
        "browser", "--", "no Chromium", "the tests of the widgets are skipped; install Chromium or set COURSE_BROWSER"
    )


def _allowed_versions() -> dict[str, str]:
    """Distribution name -> range, as pyproject.toml gives them; empty if the course is not installed."""
    try:
        from packaging.requirements import Requirement

        requirements = map(Requirement, importlib.metadata.requires(DISTRIBUTION) or [])
        return {requirement.name: str(requirement.specifier) for requirement in requirements if requirement.specifier}
    except Exception:
        return {}


def _in_range(version: str, allowed: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet

        return SpecifierSet(allowed).contains(version, prereleases=True)
    except Exception:
        return True


def as_table(findings: Iterable[Finding]) -> str:
    """The findings as text, one a line; the mend stands under what it mends."""
    findings = list(findings)
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        mark = f"[{finding.status}]"
        lines.append(f"{mark:<6} {finding.name:<{width}}  {finding.found}")
        if finding.mend:
            lines.append(f"{'':<6} {'':<{width}}  -> {finding.mend}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; the answer is the exit status: 1 if the course cannot run here, 2 for a wrong argument."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if unknown := [argument for argument in arguments if argument != "--quick"]:
        print(f"unknown argument {unknown[0]}; usage: python -m course_lib [--quick]", file=sys.stderr)
        return 2
    findings = examine(quick="--quick" in arguments)
    print(as_table(findings))
    failed = [finding.name for finding in findings if finding.status == "FAIL"]
    if failed:
        print(f"\nThe course cannot run here yet: {', '.join(failed)}.")
    return 1 if failed else 0
