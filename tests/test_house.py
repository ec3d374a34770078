"""The rules of the house that a machine can hold: floors, and what is never stored."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Where each package of course_lib stands; a file directly in course_lib stands on floor 1. An import runs down, or to a
# neighbour on floor 1 or in the same package; techniques, on floors 2 and 3, never import each other sideways.
FLOORS = {
    1: {"data", "models", "measure", "storage"},
    2: {"distillation", "pruning", "quantization", "lowrank", "peft"},
    3: {"minitron", "cbq", "peft.qlora"},
    4: {"widgets"},
}
TOOLS = {"doctor": 1, "__main__": 1}  # beside the floors -> the highest floor that they may import


def tracked() -> list[Path]:
    """The files under version control; the test is skipped where there is none, as in a downloaded archive."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: which files are stored is not known")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


# --- floors ---------------------------------------------------------------------------------------------------------


def floor_of(module: str) -> int | None:
    """The floor of ``course_lib.<module>``; the longest name that is listed counts. None: a tool, or unknown."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        for floor, names in FLOORS.items():
            if ".".join(parts[:length]) in names:
                return floor
    is_file = (ROOT / "course_lib" / f"{parts[0]}.py").is_file()
    return 1 if is_file and parts[0] not in TOOLS else None


def breaches(module: str, source: str) -> list[str]:
    """The imports in the file of ``course_lib.<module>`` that do not run down."""
    own, top = floor_of(module), module.split(".")[0]
    highest = own if own is not None else TOOLS.get(top)
    if highest is None:
        return [f"course_lib.{module} is on no floor: give it one in tests/test_house.py"]
    found = []
    for target in imports(source):
        floor = floor_of(target)
        same_package = target.split(".")[0] == top
        if same_package and floor_of(target) == own:
            continue
        if floor is None:
            if own is not None:  # a floor never leans on a tool
                found.append(f"course_lib.{module} imports course_lib.{target}, which is on no floor")
        elif floor > highest or (floor == own and own > 1):
            found.append(f"course_lib.{module} (floor {own}) imports course_lib.{target} (floor {floor})")
        elif target.split(".")[0] == "models" and (own in (2, 3) or top == "data"):
            found.append(f"course_lib.{module} imports a concrete model: {target}")
    return found


def imports(source: str, package: str = "course_lib") -> set[str]:
    """The modules of a package that ``source`` imports, anywhere in it: ``from course_lib.a import b`` gives a.b."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the floor: write course_lib.…"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix(f"{package}.") for name in found if name.startswith(f"{package}.")}


def modules() -> dict[str, Path]:
    """Module -> file, for all of course_lib; the package itself has the name ''."""
    files = sorted((ROOT / "course_lib").rglob("*.py"))
    names = (".".join(path.relative_to(ROOT / "course_lib").with_suffix("").parts) for path in files)
    names = (name.removesuffix("__init__").removesuffix(".") for name in names)
    return dict(zip(names, files, strict=True))


def test_imports_run_down():
    found = [line for name, path in modules().items() if name for line in breaches(name, path.read_text("utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    ("module", "line", "message"),
    [
        ("training", "from course_lib.distillation import hinton", "(floor 1) imports course_lib.distillation.hinton"),
        ("pruning.masks", "from course_lib.distillation.hinton import soften", "(floor 2) imports"),
        ("distillation.hinton", "def f():\n    import course_lib.widgets.temperature", "(floor 4)"),
        ("distillation.hinton", "from course_lib.models.vision import mlp", "imports a concrete model"),
        ("data.text", "from course_lib.models.encoder import MASK", "imports a concrete model"),
        ("distillation.hinton", "from course_lib.doctor import main", "which is on no floor"),
        ("peft.lora", "from course_lib.peft.qlora import load", "imports course_lib.peft.qlora.load (floor 3)"),
        ("novel.method", "import torch", "course_lib.novel.method is on no floor"),
    ],
)
def test_an_import_up_or_sideways_is_found(module, line, message):
    (found,) = breaches(module, line)
    assert message in found


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("training", "from course_lib.device import seeded"),
        ("models.encoder", "from course_lib.data.text import MASK"),
        ("distillation.hints", "from course_lib.distillation.hinton import soften"),
        ("peft.qlora", "from course_lib.peft.lora import attach"),
        ("widgets.temperature", "from course_lib.distillation.hinton import soften"),
        ("doctor", "from course_lib.device import pick_device"),
        ("pruning.masks", "import torch"),
    ],
)
def test_an_import_down_is_no_breach(module, line):
    assert breaches(module, line) == []


@pytest.mark.parametrize("folder", ["benchmarks", "classroom", "course_lib", "reproduce", "tools"])
def test_only_tests_import_tests(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    assert {path.name: found for path in files if (found := imports(path.read_text("utf-8"), "tests"))} == {}


def test_importing_the_library_is_light():
    light = [name for name in modules() if not name.startswith(("widgets", "__main__"))]
    names = [f"course_lib.{name}".removesuffix(".") for name in light]
    heavy = ("torchvision", "sklearn", "matplotlib", "ipywidgets", "accelerate", "nbgrader")
    script = f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\n"
    script += f"print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


# --- what is never stored -------------------------------------------------------------------------------------------

# Written so that this file does not hold what it looks for.
MACHINE_PATHS = re.compile(r"(?<![\w.:/~<])/(?:root|home|Users|[w]ork|[t]mp|mnt)/\w")
REGISTRIES = re.compile(r"\b(?:pypi[.]org|pythonhosted[.]org|conda[.]anaconda[.]org|registry[.]npmjs)")
ALLOWED = {"tests/lessons/test_lint.py"}  # its fixtures are such paths
WEIGHTS = {".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".onnx", ".npz", ".npy", ".h5", ".pkl"}
MOST_WEIGHTS = 10_000_000  # bytes, all together


def texts() -> dict[str, str]:
    """Path -> text, for every stored file that is text."""
    found = {}
    for path in tracked():
        try:
            found[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


def test_no_stored_file_names_a_machine_or_a_registry():
    found = {}
    for name, text in texts().items():
        if name not in ALLOWED and (match := MACHINE_PATHS.search(text) or REGISTRIES.search(text)):
            found[name] = match.group()
    assert found == {}


def test_a_path_or_a_registry_would_be_seen():
    assert MACHINE_PATHS.search("open('" + "/home" + "/me/x')")
    assert MACHINE_PATHS.search("see " + "/wo" + "rk/main")
    assert not MACHINE_PATHS.search("https://example.org/home/me and ~/work/x and a/tmp/b")
    assert REGISTRIES.search("https://pypi" + ".org/simple")


def test_weights_stay_small():
    sizes = {path: path.stat().st_size for path in tracked() if path.suffix in WEIGHTS}
    assert sum(sizes.values()) <= MOST_WEIGHTS, sizes


def test_the_code_passes_the_linter():
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", "."]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_both_licences_are_there():
    assert "MIT License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    text = (ROOT / "LICENSE-TEXT").read_text(encoding="utf-8")
    assert "CC BY 4.0" in text and "https://creativecommons.org/licenses/by/4.0/" in text
