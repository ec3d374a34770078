"""Setting the course up: one list of dependencies, one lock, and every way in asks for the same."""

import importlib.metadata
import json
import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import colab, make_venv

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ["3.11", "3.12", "3.13"]


def requirements() -> list[Requirement]:
    return [Requirement(r) for r in [*PROJECT["dependencies"], *sum(PROJECT["optional-dependencies"].values(), [])]]


def locked() -> list[Requirement]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.strip().startswith("#")]


# --- the lock -------------------------------------------------------------------------------------------------------

SYSTEMS = {
    "linux": {"sys_platform": "linux", "os_name": "posix", "platform_system": "Linux", "platform_machine": "x86_64"},
    "macos": {"sys_platform": "darwin", "os_name": "posix", "platform_system": "Darwin", "platform_machine": "arm64"},
    "windows": {"sys_platform": "win32", "os_name": "nt", "platform_system": "Windows", "platform_machine": "AMD64"},
}


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_lock_answers_every_dependency_on_every_system(system, python):
    machine = {**SYSTEMS[system], "python_version": python, "python_full_version": python + ".0"}
    pinned = {}
    for pin in locked():
        if pin.marker is None or pin.marker.evaluate(machine):
            assert pin.name not in pinned, f"{pin.name} is pinned twice"
            (exact,) = pin.specifier
            assert exact.operator == "=="
            pinned[pin.name] = exact.version
    for requirement in requirements():
        assert requirement.name in pinned
        assert requirement.specifier.contains(pinned[requirement.name]), f"{requirement} against {pinned}"
    assert ("colorama" in pinned, "pywinpty" in pinned) == (system == "windows", system == "windows")
    assert ("triton" in pinned) == (system == "linux")


def test_the_lock_can_be_given_as_constraints_and_names_no_source():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(r"^\s*--|://|@ |\+cpu|\+cu", text, re.MULTILINE)
    assert [pin.name for pin in locked() if pin.extras] == []  # pip refuses a constraint with an extra


def needed(names: set[str], found: set[str]) -> set[str]:
    """The installed distributions that those called ``names`` need, and what these need in turn."""
    for name in names - found:
        found.add(name)
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # not installed: the CPU build, say, has no libraries for GPUs
        wanted = [Requirement(line) for line in lines]
        here = {r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})}
        needed({canonicalize_name(name) for name in here}, found)
    return found


def test_what_is_needed_in_turn_is_in_the_lock():
    """A constraint holds only what it names: without this, a dependency of a dependency could come in any version."""
    found = needed({canonicalize_name(requirement.name) for requirement in requirements()}, set())
    assert len(found) > 100
    assert found - {canonicalize_name(pin.name) for pin in locked()} == set()


# --- the ways in ----------------------------------------------------------------------------------------------------


def test_conda_asks_for_the_course_and_holds_it_to_the_lock():
    python, _, packages = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert python == "python" + PROJECT["requires-python"]
    assert packages == {"pip": ["--constraint requirements.lock", "--editable ."]}


def test_uv_and_pip_are_asked_for_the_same():
    assert set(make_venv.EXTRAS.split(",")) == set(PROJECT["optional-dependencies"])
    for everything, course in ((False, "."), (True, f".[{make_venv.EXTRAS}]")):
        asked = ["-c", "requirements.lock", "-e", course]
        assert make_venv.install_command(None, everything) == [make_venv.PYTHON, "-m", "pip", "install", *asked]
        uv = make_venv.install_command("bin/uv", everything)
        assert uv == ["bin/uv", "pip", "install", "--python", make_venv.PYTHON, *asked]


@pytest.mark.parametrize(("arguments", "stamps"), [([], {".ready"}), (["--all"], {".ready", ".ready-all"})])
@pytest.mark.parametrize("uv", [None, "bin/uv"])
def test_set_up_leaves_the_stamps_that_the_makefile_waits_for(tmp_path, monkeypatch, uv, arguments, stamps):
    called = []
    monkeypatch.setattr(make_venv, "VENV", str(tmp_path))
    monkeypatch.setattr(make_venv, "PYTHON", str(tmp_path / "python"))  # not there: it is made first
    monkeypatch.setattr(make_venv.shutil, "which", lambda name: uv)
    monkeypatch.setattr(make_venv.subprocess, "call", lambda command, **_: called.append(command) or 0)
    monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)
    make_venv.main(arguments)
    made, installed = called
    assert made[1:3] == (["venv", "--quiet"] if uv else ["-m", "venv"]) and made[-1] == str(tmp_path)
    assert installed == make_venv.install_command(uv, bool(arguments))
    assert {path.name for path in tmp_path.iterdir()} == stamps
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(re.findall(r":= \.venv/(\.ready\S*)", makefile)) >= stamps


@pytest.mark.parametrize("broken", [0, 1])
def test_a_set_up_that_broke_off_leaves_no_stamp(tmp_path, monkeypatch, broken):
    results = [0, 0]
    results[broken] = 1
    monkeypatch.setattr(make_venv, "VENV", str(tmp_path))
    monkeypatch.setattr(make_venv, "PYTHON", str(tmp_path / "python"))
    monkeypatch.setattr(make_venv.subprocess, "call", lambda *_, **__: results.pop(0))
    monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)
    with pytest.raises(SystemExit, match=("virtual environment", "broke off")[broken]):
        make_venv.main([])
    assert list(tmp_path.iterdir()) == []


def test_a_build_of_pytorch_that_only_uv_finds_is_refused_without_uv():
    make_venv.check_torch_backend("bin/uv", {"UV_TORCH_BACKEND": "cpu"})
    make_venv.check_torch_backend(None, {})
    with pytest.raises(SystemExit, match=r"UV_TORCH_BACKEND .* Install uv"):
        make_venv.check_torch_backend(None, {"UV_TORCH_BACKEND": "cpu"})


def test_set_up_refuses_another_python_and_says_what_to_do():
    lowest, highest = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    assert (make_venv.FIRST, make_venv.LAST) == ((3, int(lowest)), (3, int(highest) - 1))
    assert PYTHONS == [f"3.{minor}" for minor in range(int(lowest), int(highest))]
    for version in ((3, 11, 0), (3, 13, 9)):
        make_venv.check_version(version)
    for version in ((2, 7, 18), (3, 10, 14), (3, 14, 0)):
        with pytest.raises(SystemExit, match=r"needs Python 3\.11 to 3\.13; .* make PYTHON=python3\.13"):
            make_venv.check_version(version)


# --- the commands ---------------------------------------------------------------------------------------------------


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_every_command_of_the_course_is_there():
    assert targets() >= {"lab", "test", "notebooks", "assignments", "reproduce", "bench", "slides"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for module in re.findall(r"\$\(PY\) (?:-m )?((?:tools|course_lib|reproduce|benchmarks)\S*)", makefile):
        place = ROOT / (module if module.endswith(".py") else module.replace(".", "/"))
        assert any(p.is_file() for p in (place, place.with_suffix(".py"), place / "__main__.py")), module
    assert os.access(ROOT / ".ci" / "run", os.X_OK) or os.name == "nt"
    assert "\nexport OMP_WAIT_POLICY ?= PASSIVE\n" in makefile, "two threads crawl on a busy machine"
    assert "-m pytest -n auto $(TESTS)\n" in makefile


def test_the_readme_names_commands_that_are_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^make (\w+)|`make (\w+)", readme, re.MULTILINE)) >= {("lab", ""), ("test", "")}
    assert {a or b for a, b in re.findall(r"^make (\w+)|`make (\w+)", readme, re.MULTILINE)} <= targets()
    scripts = set(re.findall(r"\btools[/\\]\w+\.py", readme))
    assert scripts and all((ROOT / script.replace("\\", "/")).is_file() for script in scripts)


def test_the_workflow_runs_the_readmes_commands_on_three_systems_with_every_python():
    workflow = yaml.safe_load((ROOT / ".github/workflows/check.yml").read_text(encoding="utf-8"))
    _, _, day_of_month, month, weekday = workflow["on"]["schedule"][0]["cron"].split()
    assert (day_of_month, month) == ("*", "*") and re.fullmatch("[0-6]", weekday)
    matrix = workflow["jobs"]["everywhere"]["strategy"]["matrix"]
    assert matrix["python"] == PYTHONS
    assert {system.split("-")[0] for system in matrix["system"]} == {"ubuntu", "macos", "windows"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("py -3.13 ", "python ")
    for job in workflow["jobs"].values():
        commands = [step["run"] for step in job["steps"] if "run" in step]
        assert "make test" in commands
        for command in set(commands) - {"python -m pip install uv"}:
            assert command in readme, command


def test_the_dev_container_has_a_python_of_the_course_and_sets_it_up():
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    assert re.search(r"python(3\.\d+)", container["image"])[1] in PYTHONS
    assert container["postCreateCommand"] == "python3 tools/make_venv.py"


# --- Colab ----------------------------------------------------------------------------------------------------------


def test_every_lesson_gets_its_link_to_colab_once():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lessons = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    linked = colab.with_links(readme, "ada/small-networks")
    base = "https://colab.research.google.com/github/ada/small-networks/blob/main/notebooks/"
    assert [base + lesson for lesson in lessons] == re.findall(r"\[Colab\]\((\S+)\)", linked)
    assert "\n!git clone --depth 1 https://github.com/ada/small-networks course\n" in linked
    assert re.sub(r" · \[Colab\]\(\S+\)", "", linked).count("|") == readme.count("|")  # the table is as it was
    assert colab.with_links(linked, "ada/small-networks") == linked
    assert colab.with_links(linked, "b.c/d") == colab.with_links(readme, "b.c/d")


@pytest.mark.parametrize("name", ["", "course", "a/b/c", "https://example.org/a/b", "a/b) c"])
def test_an_address_that_github_would_not_know_is_refused(name):
    with pytest.raises(ValueError, match="expected OWNER/NAME"):
        colab.with_links("", name)
