"""Attacks on the grader: each gains nothing, leaves the rest of the work graded, and ends with a clear message."""

import dataclasses
import os
import socket
import subprocess
import sys
import time

import psutil
import pytest

from classroom import sandbox
from classroom.grader import Student, grade
from classroom.sandbox import Limits, Sandbox, SandboxError, StudentProcessEnded
from classroom.sheet import Cell, Sheet
from tests.exercises.sets import ROOT

pytestmark = pytest.mark.usefixtures("needs_isolation")

# A sheet with two small exercises and NumPy only, so that a child starts in a fraction of a second.
SHEET = Sheet(
    (
        Cell("given", "setup", "import numpy as np\nfrom classroom.checks import expect"),
        Cell("answer", "double", "def double(x):\n    return 2 * x"),
        Cell("check", "check-double", "expect('double', double(np.arange(3.0)), [0.0, 2.0, 4.0])", 2.0),
        Cell("answer", "triple", "def triple(x):\n    return 3 * x"),
        Cell("check", "check-triple", "expect('triple', triple(np.arange(3.0)), [0.0, 3.0, 6.0])", 3.0),
    )
)
QUICK = Limits(seconds_per_call=1.5, seconds_per_cell=1.5, seconds_in_all=60, memory_mb=300, processes=16)
WRONG = "def double(x):\n    return x\n"


def graded(double: str, *extra: str, limits: Limits = QUICK, isolated: bool = True):
    """Grade a submission whose answer to the first exercise, or an added cell, is an attack."""
    cells = [Cell("other", "", source) for source in extra]
    cells += [Cell(c.kind, c.name, double) if c.name == "double" else c for c in SHEET.cells]
    with Student(SHEET.program(cells), limits, preload=("numpy",), isolated=isolated) as student:
        return grade(SHEET, student), student


def lost(double: str, *extra: str, limits: Limits = QUICK) -> str:
    """Assert that the attack gained no point and cost the other exercise none; return the message."""
    started = time.monotonic()
    results, _ = graded(double, *extra, limits=limits)
    assert results["check-double"].points == 0
    assert results["check-triple"].points == 3
    assert time.monotonic() - started < 60
    return results["check-double"].error[1]


def test_an_honest_answer_scores():
    results, _ = graded("def double(x):\n    print('hello')\n    return x + x")
    assert [r.points for r in results.values()] == [2, 3]
    assert "hello" in results["check-double"].printed


def test_patched_comparisons_change_nothing():
    attack = """
import numpy, sys
import classroom.checks, classroom.wire
numpy.allclose = numpy.array_equal = numpy.testing.assert_allclose = lambda *a, **k: True
for module in list(sys.modules.values()):
    for name in ("expect", "_close", "_matches", "allclose", "assert_close"):
        if hasattr(module, name):
            setattr(module, name, lambda *a, **k: True)
"""
    assert "got [0., 1., 2.]; expected [0., 2., 4.]" in lost(attack + WRONG)


def test_the_disk_holds_nothing_of_the_course():
    ours = [str(ROOT), str(ROOT / "solutions"), str(ROOT / ".git"), "../..", "/proc/1/root", "/proc/1/cwd", "/home"]
    attack = f"""
import os, sys
open_to_all = ("/usr", "/proc", "/dev", "/etc", sys.prefix + "/", sys.base_prefix + "/", "/course/classroom")
seen = sorted(os.environ)
for path in {ours!r}:
    try:
        seen += [os.path.join(path, name) for name in os.listdir(path)]
    except OSError:
        pass
files = []
for folder, inner, names in os.walk("/"):
    inner[:] = [d for d in inner if not os.path.join(folder, d).startswith(open_to_all)]
    paths = [os.path.join(folder, n) for n in names]
    files += [f for f in paths if os.path.isfile(f) and not f.startswith(open_to_all)]
course = [f for f in seen + files if "ps1" in f or "gradebook" in f or "solutions" in f or "README" in f]
def double(x):
    return x
"""
    with Student([("look", attack)], Limits(seconds_per_cell=60), preload=()) as student:
        assert student.cells["look"].error is None, student.cells["look"].error
        looked = student.ask(do="look", names=["course", "files", "seen"])["value"]
    assert looked["course"] == ["value", []]
    assert looked["files"] == ["value", []]
    assert not [name for name in looked["seen"][1] if name.startswith(("GRADING", "COURSE", "NBGRADER", "SSH", "AWS"))]


def test_expected_values_never_leave_the_grader(monkeypatch):
    sent = []
    request = Sandbox.request
    monkeypatch.setattr(
        Sandbox,
        "request",
        lambda self, seconds, **message: sent.append(repr(message)) or request(self, seconds, **message),
    )
    graded(WRONG)
    assert any("array([0., 1., 2.])" in message for message in sent)  # the arguments travel
    assert not any("4.0" in message or "expect(" in message for message in sent)  # nothing else does


def test_the_library_of_reference_answers_is_not_there():
    message = lost("from course_lib.distillation import soften\n" + WRONG)
    assert "No module named 'course_lib'" in message


def test_there_is_no_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        attack = f"""
import socket
def double(x):
    with socket.create_connection(("127.0.0.1", {port}), 1) as c:
        c.sendall(b"answers, please")
    return 2 * x
"""
        assert "unreachable" in lost(attack) or "refused" in lost(attack)
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_fork_bomb_stays_in_its_room():
    attack = """
import os, time
def double(x):
    try:
        while True:
            if os.fork() == 0:
                while True:
                    time.sleep(0.01)
    except OSError as error:
        raise RuntimeError(f"no more processes: {error}")
"""
    started = {int(p) for p in os.listdir("/proc") if p.isdigit()}
    assert "no more processes" in lost(attack)
    time.sleep(0.2)
    left = {int(p) for p in os.listdir("/proc") if p.isdigit()} - started
    assert not [p for p in left if b"classroom.worker" in _command_line(p) and _is_ours_or_nobodys(p)]


def _is_ours_or_nobodys(pid: int) -> bool:
    """Is it below this process, or left to the first one? Beside this test others may have rooms of their own."""
    try:
        parents = {parent.pid for parent in psutil.Process(pid).parents()}
    except psutil.NoSuchProcess:
        return False
    return os.getpid() in parents or parents <= {1}


def _command_line(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def test_memory_is_limited():
    assert "MemoryError" in lost("import numpy\ndef double(x):\n    return numpy.ones(2**28) * 2\n")


def test_memory_of_all_processes_together_is_limited():
    attack = """
import os, time
def double(x):
    for _ in range(12):
        if os.fork() == 0:
            block = bytearray(b"x") * (60 * 2**20)
            time.sleep(60)
            os._exit(0)
    time.sleep(60)
"""
    assert "more than 300 MB of memory" in lost(attack, limits=Limits(seconds_per_call=15, memory_mb=300))


def test_files_are_limited():
    assert "too large" in lost("def double(x):\n    open('big', 'wb').write(bytes(2**26))\n    return 2 * x\n")


def test_a_loop_that_never_ends_costs_its_own_exercise_only():
    assert "Is there a loop that never ends?" in lost("def double(x):\n    while True:\n        pass\n")
    message = lost("while True:\n    pass\n")
    assert "double is not there: its cell stopped" in message
    assert "never ends" in message


@pytest.mark.parametrize(
    "end", ["os._exit(0)", "sys.exit('bye')", "os.kill(os.getpid(), 9)", "os.kill(-1, 9)", "ctypes.string_at(0)"]
)
def test_ending_the_process_gains_nothing(end):
    message = lost(f"import ctypes, os, sys\ndef double(x):\n    {end}\n    return x\n")
    # kill(-1) reaches nobody: the process is alone with its user id, or may not touch the room's first process.
    assert "ended the Python process" in message or "SystemExit" in message or "ProcessLookupError" in message


def test_junk_on_every_channel_is_refused():
    attack = """
import os, sys
def double(x):
    sys.__stdout__.write("1.0 " * 1000)
    for number in range(64):
        try:
            os.write(number, b"x" * 4096)
        except OSError:
            pass
    return 2 * x
"""
    assert "the grader's own channel" in lost(attack)


def test_forged_replies_are_only_data():
    attack = """
import gc, socket
from classroom import wire
line = next(o for o in gc.get_objects() if isinstance(o, socket.socket))
def double(x):
    for _ in range(3):
        wire.send(line, {"value": True, "printed": "", "points": 100, "passed": True})
    return 2 * x
"""
    results, _ = graded(attack)
    assert results["check-double"].points == 0


def test_objects_that_lie_do_not_arrive():
    liar = """
import numpy
class Liar:
    __eq__ = __le__ = __ge__ = lambda self, other: True
    __array__ = lambda self, *a, **k: numpy.array([0.0, 2.0, 4.0])
    __float__ = lambda self: 1.0
def double(x):
    return Liar()
"""
    assert "a value of type Liar" in lost(liar)
    subclass = """
import numpy
class Liar(numpy.ndarray):
    __eq__ = __lt__ = __sub__ = lambda self, other: True
def double(x):
    return x.view(Liar)
"""
    assert "got [0., 1., 2.]" in lost(subclass)


def test_an_answer_too_large_or_too_deep_is_refused():
    assert "the limit is 64 MB" in lost("import numpy\ndef double(x):\n    return numpy.zeros(9 * 2**20)\n")
    assert "deep" in lost("def double(x):\n    for _ in range(50):\n        x = [x]\n    return x\n")


def test_a_submission_that_keeps_ending_its_process_is_given_up():
    cells = ["import os\nos._exit(1)"] * 9
    results, student = graded(WRONG, *cells)
    assert all(r.points == 0 for r in results.values())
    assert "the rest was not run" in results["check-triple"].error[1]


def test_a_check_or_a_given_cell_in_the_submission_is_never_run():
    cells = [Cell(c.kind, c.name, "raise SystemError('run!')") if c.kind != "answer" else c for c in SHEET.cells]
    with Student(SHEET.program(cells), QUICK, preload=("numpy",)) as student:
        assert all(r.points == r.out_of for r in grade(SHEET, student).values())
        assert all(r.error is None for r in student.cells.values())


def test_jupyter_lines_and_broken_cells_do_no_harm():
    results, student = graded("def double(x):\n    return 2 * x\n", "%matplotlib inline\n!ls", "1 +", "undefined")
    assert [r.points for r in results.values()] == [2, 3]
    assert student.cells["your cell 2"].error[0] == "SyntaxError"


@pytest.mark.parametrize(
    "before",
    [
        "%matplotlib inline",
        "%load_ext autoreload\n%autoreload 2\n!pip install nothing",
        "%%time",
        "%%capture out",
        "print?\n??print",
        "files = !ls\nhere = %pwd",
        "get_ipython().run_line_magic('matplotlib', 'inline')",
        "display(3)",
        "x = (7\n     % 4)\n%time y = 3\nassert x == y",
        "text = '''\n!important\n%time\n'''\n%time\nassert 'important' in text and '%time' in text",
    ],
)
def test_what_jupyter_alone_understands_may_stand_before_a_definition(before):
    results, student = graded(f"{before}\ndef double(x):\n    return 2 * x\n")
    assert student.cells["double"].error is None
    assert [r.points for r in results.values()] == [2, 3]


def test_slow_cells_of_the_students_own_cost_no_points():
    slow = ["import time\ntime.sleep(60)", "while True:\n    pass"] * 3 + ["half = 0.5"]
    started = time.monotonic()
    results, student = graded("def double(x):\n    return 4 * half * x\n", *slow)
    assert [r.points for r in results.values()] == [2, 3]
    assert [student.cells[f"your cell {n}"].error[0] for n in range(1, 7)] == ["OutOfTime"] * 6
    assert "more than 1.5 s" in student.cells["your cell 1"].error[1]  # the time of all of them together
    assert "more than 1 s" in student.cells["your cell 2"].error[1]
    assert time.monotonic() - started < 30


def test_an_error_of_the_students_own_type_is_what_it_derives_from():
    refusing = Sheet(
        (
            Cell("given", "setup", "from classroom.checks import expect_refusal"),
            Cell("answer", "one", "def one(x):\n    pass"),
            Cell("check", "check-one", "expect_refusal('0', lambda: one(0))", 1.0),
        )
    )
    own = "class Bad({base}):\n    pass\ndef one(x):\n    raise Bad('no')"
    for base, points in [("ValueError", 1), ("ValueError, KeyError", 1), ("TypeError", 0), ("Exception", 0)]:
        with Student([("one", own.format(base=base))], QUICK, preload=()) as student:
            result = grade(refusing, student)["check-one"]
        assert result.points == points, result
    assert "Bad: no" in result.error[1]


def test_arguments_that_a_call_changes_cost_the_check_unless_a_wrong_value_says_more():
    changes = "def double(x):\n    x *= 2\n    return x"
    assert (
        lost(changes) == "double changes its argument number 1. Work on a copy (clone, or dict(...)), and return that"
    )
    assert "expected [0., 2., 4.]" in lost("def double(x):\n    x *= 3\n    return x")
    results, _ = graded("def double(x):\n    x += 5.1\n    x -= 5.1\n    return 2 * x")
    assert results["check-double"].points == 2  # put back, up to rounding


def test_privileges_are_gone():
    look = """
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
rights = [status[k].strip() for k in ("CapEff", "CapPrm", "CapBnd", "NoNewPrivs")]
mounts = [line.split()[4:6] for line in open("/proc/self/mountinfo")]
writable = sorted(p for p, options in mounts if options.startswith("rw") and not p.startswith(("/proc", "/dev/")))
"""
    with Student([("look", look)], QUICK, preload=()) as student:
        assert student.cells["look"].error is None
        looked = student.ask(do="look", names=["rights", "writable"])["value"]
    assert looked["rights"][1] == ["0" * 16, "0" * 16, "0" * 16, "1"]
    assert looked["writable"][1] == ["/tmp"]


def test_the_way_of_an_ordinary_user(monkeypatch):
    """Through a user namespace, as somebody who is not root takes it."""
    monkeypatch.setattr(sandbox.os, "geteuid", lambda: 1000)
    try:
        results, _ = graded("def double(x):\n    return 2 * x")
    except SandboxError as error:
        pytest.skip(f"no user namespaces here: {error}")
    assert [r.points for r in results.values()] == [2, 3]


def test_the_room_goes_when_the_grader_is_killed():
    program = (
        "from classroom.sandbox import Sandbox\nimport time\n"
        "with Sandbox(preload=()) as s:\n    print(s._process.pid, flush=True)\n    time.sleep(60)"
    )
    grader = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    room = int(grader.stdout.readline())
    assert _command_line(room)
    grader.kill()
    grader.wait()
    deadline = time.monotonic() + 10
    while b"unshare" in _command_line(room) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert b"unshare" not in _command_line(room)


def test_without_isolation_the_grader_refuses(monkeypatch):
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    with pytest.raises(SandboxError, match=r"Grade on Linux, in WSL2 or in a container"):
        Sandbox().__enter__()


def test_a_machine_that_cannot_isolate_says_so(monkeypatch):
    monkeypatch.setattr(sandbox, "_unshare", lambda: ["/usr/bin/env", "false"])
    with pytest.raises(SandboxError, match="namespaces"):
        Sandbox().__enter__()


def test_isolation_can_be_given_up_in_so_many_words():
    results, _ = graded("def double(x):\n    return 2 * x", isolated=False)
    assert [r.points for r in results.values()] == [2, 3]


def test_every_sandbox_is_closed_also_the_ones_that_a_student_ended():
    end = "import os\ndef double(x):\n    os._exit(1)"
    rooms = []
    with Student([("answer", end)], isolated=False, preload=()) as student:
        for _ in range(2):
            with pytest.raises(StudentProcessEnded):
                student.ask(do="call", name="double", args=[1], kwargs={})
            rooms.append(student.room)
    assert rooms[0] is not rooms[1]
    assert [(room._connection.fileno(), room._errors.closed) for room in rooms] == [(-1, True)] * 2


# --- whatever the child answers, and whatever ends the parent, nothing is left of the room --------------------------

MALFORMED = [
    {},
    {"error": 5},
    {"error": None},
    {"error": []},
    {"error": ["ValueError"]},
    {"error": ["a", "b", "c", "d"]},
    {"error": [1, 2, 3]},
    {"error": ("a", "b", "c")},
    {"error": [["a"], {"b": 1}, "c"]},
    {"error": ["a", "b", "c"], "printed": 5},
    {"printed": "text"},
    {"value": 1, "printed": ["x"]},
    {"value": 1, "error": 5},
    {"do": "call", "name": "x"},
]
WELL_FORMED = [  # and wrong in what they say
    {"error": ["StudentProcessEnded", "x", "y"]},
    {"error": ["print", "x", "y"]},
    {"error": ["UnicodeDecodeError", "x", "y"]},
    {"error": ["ExceptionGroup", "x", "y"]},
    {"value": [0.0, 2.0, 4.0], "after": 5},
    {"value": 5},
    {"value": {"double": 5}},
    {"value": {"double": ["function"], "triple": [[], {}]}},
    {"value": {"double": ["value", 5], "triple": ["other", 3]}},
    {"value": "x" * 200_000},
]
# Answers every request with the forged reply, and starts processes that would outlive it.
FORGER = """
import os, gc, socket, time
from classroom import wire
for _ in range(5):
    if os.fork() == 0:
        while True:
            time.sleep(60)
line = next(o for o in gc.get_objects() if isinstance(o, socket.socket))
def forge():
    while True:
        wire.send(line, REPLY)
        wire.receive(line)
WHEN
"""


def room_users() -> set[int]:
    """The user ids of all processes in rooms of this test."""
    users = {p.pid: p.info["uids"].real for p in psutil.process_iter(["uids"]) if p.info["uids"]}
    return {user for pid, user in users.items() if 50_000 <= user < 60_000 and _is_ours_or_nobodys(pid)}


@pytest.mark.parametrize("reply", MALFORMED, ids=repr)
def test_a_reply_of_another_form_is_refused(reply):
    with pytest.raises(sandbox.wire.WireError, match="another form"):
        sandbox._checked(reply)


@pytest.fixture(scope="module")
def threads_of_one_student() -> str:
    return _threads()


def _threads() -> str:
    count = """
import threading, time
started = []
try:
    while len(started) < 99:
        started.append(threading.Thread(target=time.sleep, args=(60,), daemon=True))
        started[-1].start()
except RuntimeError:
    pass
def double(x):
    return [len(started), 2, 4]
"""
    results, _ = graded(count, limits=dataclasses.replace(QUICK, memory_mb=1_000))
    return results["check-double"].error[1]


@pytest.mark.parametrize("when", ["forge()", "def double(x):\n    forge()"], ids=["in a cell", "in a call"])
def test_after_a_forged_reply_the_room_is_closed_and_the_next_student_is_unhurt(when, threads_of_one_student):
    for reply in [MALFORMED[1], *WELL_FORMED[:6:2], WELL_FORMED[7]]:
        attack = FORGER.replace("REPLY", repr(reply)).replace("WHEN", when)
        cells = [Cell(c.kind, c.name, attack) if c.name == "double" else c for c in SHEET.cells]
        with Student(SHEET.program(cells), QUICK, preload=("numpy",)) as student:
            results = grade(SHEET, student, ["check-double"])
        assert results["check-double"].points == 0, reply
        assert room_users() == set(), reply
    assert _threads() == threads_of_one_student


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError, SystemExit])
@pytest.mark.parametrize("where", ["receive", "send"])
def test_whatever_ends_the_grader_closes_the_room(monkeypatch, error, where):
    rooms, original, calls = [], getattr(sandbox.wire, where), []

    def fail(connection, *rest):
        calls.append(where)
        if len(calls) == 4:
            raise error("no")
        return original(connection, *rest)

    enter = Sandbox.__enter__
    monkeypatch.setattr(Sandbox, "__enter__", lambda self: rooms.append(self) or enter(self))
    monkeypatch.setattr(sandbox.wire, where, fail)
    with pytest.raises(error):
        graded(WRONG)
    (room,) = rooms
    assert (room._connection.fileno(), room._errors.closed, os.path.exists(room._room)) == (-1, True, False)
    assert room._process.returncode is not None
    assert room_users() == set()


def test_each_submission_has_a_user_of_its_own():
    if os.geteuid() != 0:
        pytest.skip("an ordinary user's rooms have user namespaces of their own")
    with Sandbox(preload=()), Sandbox(preload=()), Sandbox(preload=()):
        assert len(room_users()) == 3
