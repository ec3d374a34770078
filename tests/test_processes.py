"""Two processes give what one gives, started by ``accelerate launch`` and by ``notebook_launcher``."""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from course_lib.processes import Processes

JOB = Path(__file__).with_name("processes_job.py")


def load_job():
    spec = importlib.util.spec_from_file_location("processes_job", JOB)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


job = load_job()
SAME = [function.__name__ for function in job.SAME_AS_ONE]
LAUNCHERS = ("accelerate", "notebook")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def start(launcher, folder):
    """A command that runs the job in two processes on the CPU; nothing leaves this machine.

    ``--multi_gpu`` means several processes: with ``--cpu`` Accelerate 1.15 would start one, whatever the number.
    The job asks for the CPU itself.
    """
    port = free_port()
    command = {
        "accelerate": [
            *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
            *("--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"),
            *("--main_process_ip", "127.0.0.1", "--main_process_port", port, str(JOB), str(folder)),
        ],
        "notebook": [str(JOB), str(folder), "notebook", port],
    }[launcher]
    # no setting of whoever runs the tests reaches the launcher: neither its file nor its variables
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    interface = "lo" if sys.platform == "linux" else environment.get("GLOO_SOCKET_IFNAME", "")
    environment |= {
        "PYTHONPATH": str(JOB.parents[1]),
        "HF_HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": interface,
    }
    return subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each process ended with: ``results[launcher][rank][job]``; ``results["one"]`` is of a single process."""
    folders = {launcher: tmp_path_factory.mktemp(launcher) for launcher in LAUNCHERS}
    running = {launcher: start(launcher, folder) for launcher, folder in folders.items()}
    threads = torch.get_num_threads()
    found = {"one": job.run(tmp_path_factory.mktemp("one"))}
    torch.set_num_threads(threads)
    for launcher, process in running.items():
        try:
            output = process.communicate(timeout=240)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert process.returncode == 0, output
        found[launcher] = [torch.load(folders[launcher] / f"{rank}.pt") for rank in (0, 1)]
    return found


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_give_the_weights_and_the_history_of_one(results, launcher, name):
    one = results["one"][name]
    for process in results[launcher]:
        two = process[name]
        for key, value in one["weights"].items():
            torch.testing.assert_close(two["weights"][key], value, rtol=1e-4, atol=1e-6)
        for key, value in one["history"].items():
            close = value if value is None else pytest.approx(value, rel=1e-4, abs=1e-6)
            assert two["history"][key] == close, key


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("name", [*SAME, "normalised"])
def test_both_processes_end_with_the_same_numbers(results, launcher, name):
    first, second = (process[name] for process in results[launcher])
    assert first["history"] == second["history"]
    assert all(torch.equal(value, second["weights"][key]) for key, value in first["weights"].items())


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_dropout_is_not_the_same_in_both_processes(results, launcher):
    first, second = (process["dropped"]["weights"]["mask"] for process in results[launcher])
    assert first.shape == second.shape == (4, 64)
    assert (first == second).float().mean() == pytest.approx(0.5, abs=0.15)


def test_the_jobs_do_train():
    """The comparison above would be easy for a model that stays as it was."""
    for function in (job.plain, job.single_steps):
        before = job.net().state_dict()
        model, history = function(None, Path())
        assert not any(torch.allclose(value, before[key], atol=1e-3) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("count", "world", "expected"),
    [(5, 2, [3 * 2 / 5, 2 * 2 / 5]), (1, 2, [2, 0]), (4, 2, [1, 1]), (2, 3, [1.5, 1.5, 0]), (3, 1, [1])],
)
def test_parts_and_weights_by_hand(count, world, expected):
    inputs, labels = torch.randn(count, 2), torch.arange(count)
    parts, weights = [], []
    for rank in range(world):
        processes = Processes()
        processes.rank, processes.world = rank, world
        (part, its_labels), weight = processes.part((inputs, labels), lambda batch: len(batch[0]))
        assert len(part) == len(its_labels) >= 1 and torch.equal(part, inputs[its_labels])
        weights.append(weight)
        parts += its_labels.tolist() if weight else []
    assert weights == pytest.approx(expected) and sum(weights) == pytest.approx(world)
    assert sorted(parts) == list(range(count))
