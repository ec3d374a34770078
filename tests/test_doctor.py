"""``python -m course_lib``: on a whole machine, and on machines with something missing or broken."""

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from course_lib import doctor
from course_lib.doctor import Finding

ROOT = Path(__file__).parent.parent


def run_python(*arguments: str, broken: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    """Run Python at the root of the course, with the packages under ``broken`` in front of the real ones."""
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    if broken:
        settings["PYTHONPATH"] = str(broken)
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=settings, capture_output=True, text=True, check=False
    )


def break_package(folder: Path, name: str, code: str) -> None:
    """A package ``name`` in ``folder`` that runs ``code`` when it is imported."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)


def line_of(output: str, name: str) -> str:
    """The line of the table that is about ``name``."""
    return next(line for line in output.splitlines() if line[7:].startswith(name + " "))


def test_here_the_course_can_run():
    result = run_python("-m", "course_lib", COURSE_DEVICE="cpu", COURSE_SCALE="quick")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "[FAIL]" not in result.stdout
    for name in ("python", "torch", "torchvision", "jupyterlab", "ipywidgets", "widget extension", "nbval"):
        assert line_of(result.stdout, name).startswith("[OK]   "), result.stdout
    assert line_of(result.stdout, "device").endswith(" cpu")
    assert "1,797 pictures" in line_of(result.stdout, "data: digits")
    assert " of " in line_of(result.stdout, "threads")
    assert line_of(result.stdout, "browser")


def test_a_broken_torchvision_does_not_break_the_course(tmp_path):
    break_package(tmp_path, "torchvision", "raise RuntimeError('operator torchvision::nms does not exist\\nmore')")
    script = """
        from course_lib.doctor import main
        assert main([]) == 0
        from course_lib.data.images import load_images
        from course_lib import activations
        from course_lib.distillation import hinton, teachers
        from course_lib.models.vision import mlp
        print(mlp([64, 5, 10])(load_images("digits").test.tensors[0]).shape)
    """
    result = run_python("-c", textwrap.dedent(script), broken=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert line_of(result.stdout, "torchvision").startswith("[--]")
    assert "broken: operator torchvision::nms does not exist" in result.stdout
    assert result.stdout.endswith("torch.Size([500, 10])\n")


def test_a_broken_torch_is_a_failure_with_its_mend(tmp_path):
    break_package(tmp_path, "torch", "raise OSError('libtorch_cpu.so: cannot open shared object file')")
    result = run_python("-m", "course_lib", "--quick", broken=tmp_path)
    assert result.returncode == 1
    assert line_of(result.stdout, "torch").startswith("[FAIL] torch")
    assert "broken: libtorch_cpu.so" in result.stdout
    assert doctor.REINSTALL in result.stdout
    assert "The course cannot run here yet: torch, device." in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_wrong_settings_are_failures():
    result = run_python("-m", "course_lib", "--quick", COURSE_DEVICE="abacus", COURSE_SCALE="huge")
    assert result.returncode == 1
    assert "abacus" in line_of(result.stdout, "device")
    assert line_of(result.stdout, "COURSE_SCALE") == "[FAIL] COURSE_SCALE         'huge'"


def test_an_unknown_argument_is_refused():
    result = run_python("-m", "course_lib", "--fast")
    assert result.returncode == 2
    assert "--fast" in result.stderr and "--quick" in result.stderr


@pytest.mark.parametrize(
    ("code", "status", "found"),
    [
        ("raise AttributeError('no such thing')", "FAIL", "broken: no such thing"),
        ("raise ValueError", "FAIL", "broken: ValueError"),
        ("import a_part_that_is_missing", "FAIL", "broken: its part a_part_that_is_missing is missing"),
    ],
)
def test_whatever_a_package_raises_becomes_a_line(tmp_path, monkeypatch, code, status, found):
    break_package(tmp_path, "wobbly", code)
    monkeypatch.syspath_prepend(tmp_path)
    finding = doctor.check_package("wobbly", "wobbly")
    assert finding == Finding("wobbly", status, found, doctor.REINSTALL)


def test_a_missing_package_is_a_failure_only_if_every_lesson_needs_it():
    assert doctor.check_package("not_there", "not-there").status == "FAIL"
    optional = doctor.check_package("not_there", "not-there", only_for="the slides")
    assert (optional.status, optional.found) == ("--", "not installed")
    assert "needed for the slides" in optional.mend
    assert doctor.check_package("not_there", "not-there", imported=False).found == "not installed"


def test_a_learner_is_not_told_of_what_only_tests_and_graders_need(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in doctor.EXTRA else found(name))
    monkeypatch.setattr(doctor, "find_browser", lambda: None)
    monkeypatch.setenv("COURSE_DATA", "nowhere")
    monkeypatch.delenv("COURSE_DEVICE", raising=False)
    findings = doctor.examine(quick=True)
    assert [finding for finding in findings if finding.status != "OK"] == []
    assert "make test" in {finding.name: finding for finding in findings}["set-up"].found
    assert not set(doctor.EXTRA) & {finding.name for finding in findings}


def test_a_part_of_the_extras_that_is_missing_is_named_with_its_mend(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nbgrader" else found(name))
    monkeypatch.setattr(doctor, "find_browser", lambda: None)
    findings = {finding.name: finding for finding in doctor.examine(quick=True)}
    assert (findings["nbgrader"].status, findings["nbgrader"].found) == ("--", "not installed")
    assert "[classroom,compare,dev]" in findings["nbgrader"].mend
    assert findings["browser"].status == "--" and "set-up" not in findings


def test_a_version_outside_the_range_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "_allowed_versions", lambda: {"numpy": ">=999"})
    finding = doctor.check_package("numpy", "numpy")
    assert finding.status == "FAIL"
    assert finding.found.endswith(", the course needs >=999")


def test_the_ranges_are_those_of_the_project_file():
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    written = [project["dependencies"], *project["optional-dependencies"].values()]
    ranges = {r.name: str(r.specifier) for r in map(Requirement, [line for group in written for line in group])}
    assert doctor._allowed_versions() == ranges
    assert doctor.check_python((3, 11, 0)).status == doctor.check_python((3, 13, 9)).status == "OK"
    assert project["requires-python"] == ">=3.11,<3.14"
    assert doctor.check_python((3, 10, 9)).status == doctor.check_python((3, 14, 0)).status == "FAIL"


def test_the_widget_extension_is_a_file_of_jupyterlab(tmp_path):
    assert doctor.check_widget_extension([tmp_path]).status == "--"
    package = tmp_path / "@jupyter-widgets" / "jupyterlab-manager" / "package.json"
    package.parent.mkdir(parents=True)
    package.write_text('{"version": "5.0.1"}')
    assert doctor.check_widget_extension([tmp_path]) == Finding("widget extension", "OK", "jupyterlab-manager 5.0.1")


def test_downloaded_data_is_looked_for_under_course_data(tmp_path, monkeypatch):
    from course_lib.data import files
    from course_lib.data.images import IDX_FILES

    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")
    paths = [tmp_path / file.path for file in IDX_FILES["mnist"]]
    paths[0].parent.mkdir(parents=True)
    for path in paths[1:]:
        path.touch()
    mnist = {finding.name: finding for finding in doctor.check_downloads()}["data: mnist"]
    assert (mnist.status, mnist.found) == ("--", "1 of 4 files missing")
    assert "train-images-idx3-ubyte.gz" in mnist.mend and "COURSE_DATA" in mnist.mend
    paths[0].touch()
    findings = {finding.name: finding for finding in doctor.check_downloads()}
    assert findings["data: mnist"] == Finding("data: mnist", "OK", str(tmp_path))
    assert findings["data: cifar10"].status == "--"


def test_the_browser_that_is_named_comes_first(tmp_path):
    named, other = tmp_path / "named", tmp_path / "chromium"
    for path in (named, other):
        path.write_text("")
        path.chmod(0o755)
    assert doctor.find_browser({"PATH": str(tmp_path)}) == str(other)
    assert doctor.find_browser({"PATH": str(tmp_path), "COURSE_BROWSER": str(named)}) == str(named)
    assert doctor.find_browser({"PATH": str(tmp_path), "COURSE_BROWSER": str(tmp_path / "gone")}) is None


def test_the_table_puts_a_mend_under_its_line():
    table = doctor.as_table([Finding("a", "OK", "1.0"), Finding("long name", "FAIL", "gone", "install it")])
    assert table.splitlines() == [
        "[OK]   a          1.0",
        "[FAIL] long name  gone",
        "                  -> install it",
    ]
