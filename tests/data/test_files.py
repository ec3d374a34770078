"""Data files: found, checked, downloaded from a server of our own that behaves well or badly."""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch
import pytest

from course_lib.data import files
from course_lib.data.files import DataFile, DataFileError, cache_folder, data_folders, find_or_download

CONTENT = bytes(range(256)) * 4000  # about a megabyte
BLOCK = 1 << 14  # what is received is written in blocks of this size
OFFLINE = "'digits' works offline"


class Server:
    """A web server on this machine; ``behave`` is a list of what it does with the requests to come.

    ``None``: sends all that is asked for. A number: breaks off after so many bytes. A status: answers with it.
    An event: sends half, and the rest when the event is set.
    """

    def __init__(self):
        self.content, self.ranges, self.behave, self.requests, self.sent = CONTENT, True, [], [], 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/file.gz"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, handler):
        self.requests.append(handler.headers.get("Range"))
        act = self.behave.pop(0) if self.behave else None
        if isinstance(act, str):
            handler.send_error(int(act))
            return
        start = 0
        if self.ranges and handler.headers.get("Range"):
            start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.content):
                handler.send_error(416)
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        else:
            handler.send_response(200)
        rest = self.content[start:]
        if "gzip" in handler.headers.get("Accept-Encoding", ""):  # as some servers say of a .gz file
            handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(rest)))
        handler.end_headers()
        if isinstance(act, threading.Event):
            handler.wfile.write(rest[: len(rest) // 2])
            self.sent += len(rest) // 2
            act.wait(60)
            rest = rest[len(rest) // 2 :]
        rest = rest[:act] if isinstance(act, int) else rest
        self.sent += len(rest)
        handler.wfile.write(rest)


@pytest.fixture
def server():
    found = Server()
    yield found
    found.http.shutdown()
    found.http.server_close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    waits = []
    monkeypatch.setattr(pooch.core.time, "sleep", waits.append)
    return waits


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def the_file(*urls, content=CONTENT):
    return DataFile("set/raw/file.gz", hashlib.md5(content).hexdigest(), urls or ("http://127.0.0.1:9/file.gz",))


def put(folder, content=CONTENT):
    path = Path(folder) / "set/raw/file.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# ---- where files are looked for


def test_folders_in_order(monkeypatch, cache, tmp_path):
    assert data_folders() == [cache]
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "given"))
    assert data_folders() == [tmp_path / "given", cache]
    assert data_folders(tmp_path / "root") == [tmp_path / "root"]


def test_the_cache_is_the_system_s():
    assert cache_folder().name == "model-compression-course"


def test_course_data_comes_before_the_cache(monkeypatch, cache, tmp_path):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "given"))
    in_cache = put(cache)
    assert find_or_download(the_file(), download=False) == in_cache
    given = put(tmp_path / "given")
    assert find_or_download(the_file(), download=False) == given
    assert find_or_download(the_file(), root=cache, download=False) == in_cache


@pytest.mark.parametrize("how", ["variable", "argument"])
def test_a_tilde_is_the_home_folder(monkeypatch, cache, tmp_path, how):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    path = put(tmp_path / "data")
    if how == "variable":
        monkeypatch.setenv("COURSE_DATA", "~/data")
    root = "~/data" if how == "argument" else None
    assert find_or_download(the_file(), root=root, download=False) == path


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT[:-1] + b"?", CONTENT + b"?"])
def test_a_damaged_file_is_an_error_and_stays(cache, server, content):
    path = put(cache, content)
    with pytest.raises(DataFileError, match=f"{path} is damaged: its MD5.*Delete it.*{OFFLINE}"):
        find_or_download(the_file(server.url))
    assert path.read_bytes() == content and server.requests == []


def test_a_file_that_cannot_be_read(cache, monkeypatch):
    path = put(cache)

    def denied(path, alg):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pooch, "file_hash", denied)
    with pytest.raises(DataFileError, match=f"{path} cannot be read .*Permission denied.*{OFFLINE}"):
        find_or_download(the_file())


@pytest.mark.parametrize("download", [True, False])
def test_missing_without_a_network(cache, monkeypatch, tmp_path, download, no_waiting):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "given"))
    with pytest.raises(DataFileError) as caught:
        find_or_download(the_file(), download=download)  # nobody listens at port 9
    message = str(caught.value)
    for part in (str(tmp_path / "given/set/raw/file.gz"), str(cache / "set/raw/file.gz"), "127.0.0.1:9", OFFLINE):
        assert part in message
    assert no_waiting == ([1.0, 2.0] if download else [])
    assert not any(path.is_file() and path.stat().st_size for path in cache.rglob("*"))


# ---- the download


def test_a_download(cache, server):
    path = find_or_download(the_file(server.url))
    assert path == cache / "set/raw/file.gz" and path.read_bytes() == CONTENT
    assert os.listdir(path.parent) == ["file.gz"]
    assert find_or_download(the_file(server.url)) == path and len(server.requests) == 1


def test_into_the_folder_that_the_caller_names(cache, server, tmp_path):
    assert find_or_download(the_file(server.url), root=tmp_path / "mine") == tmp_path / "mine/set/raw/file.gz"
    assert not cache.exists()


def test_after_a_break_it_goes_on_where_it_stopped(cache, server):
    server.behave = [BLOCK * 20, BLOCK * 30, None]
    path = find_or_download(the_file(server.url))
    assert path.read_bytes() == CONTENT
    assert server.requests[0] is None and len(server.requests) == 3
    assert [int(asked[6:-1]) for asked in server.requests[1:]] == [BLOCK * 20, BLOCK * 50]
    assert server.sent == len(CONTENT)  # no byte twice


def test_a_break_within_a_block_loses_no_more_than_that_block(cache, server):
    server.behave = [300_000, None]
    assert find_or_download(the_file(server.url)).read_bytes() == CONTENT
    assert len(CONTENT) <= server.sent < len(CONTENT) + BLOCK


def test_it_goes_on_in_a_later_call_too(cache, server):
    server.behave = [BLOCK * 20, "500", "503"]
    with pytest.raises(DataFileError, match=f"could not be downloaded .*503.*{OFFLINE}"):
        find_or_download(the_file(server.url))
    assert os.listdir(cache / "set/raw") == ["file.gz.part"]
    assert find_or_download(the_file(server.url)).read_bytes() == CONTENT
    assert server.requests[-1] == f"bytes={BLOCK * 20}-" and server.sent == len(CONTENT)


def test_a_server_that_knows_no_ranges(cache, server):
    server.ranges, server.behave = False, [300_000, None]
    assert find_or_download(the_file(server.url)).read_bytes() == CONTENT
    assert server.sent == 300_000 + len(CONTENT)


def test_a_part_that_is_whole_already(cache, server):
    put(cache)
    (cache / "set/raw/file.gz").rename(cache / "set/raw/file.gz.part")
    assert find_or_download(the_file(server.url)).read_bytes() == CONTENT
    assert server.sent == 0


@pytest.mark.parametrize("part", [b"?" * 1000, CONTENT + b"?"])
def test_a_part_of_something_else_is_thrown_away(cache, server, part):
    put(cache, part).rename(cache / "set/raw/file.gz.part")
    assert find_or_download(the_file(server.url)).read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(part)}-", None]


def test_a_wrong_checksum_leads_to_the_next_mirror(cache, server):
    other = Server()
    other.content = b"an error page"
    try:
        path = find_or_download(the_file(other.url, server.url))
    finally:
        other.http.shutdown()
        other.http.server_close()
    assert path.read_bytes() == CONTENT and len(other.requests) == 1
    assert os.listdir(path.parent) == ["file.gz"]


def test_a_mirror_goes_on_where_the_first_address_broke_off(cache, server):
    other = Server()
    other.behave = [BLOCK * 20]
    try:
        path = find_or_download(the_file(other.url, server.url))
    finally:
        other.http.shutdown()
        other.http.server_close()
    assert path.read_bytes() == CONTENT and server.requests == [f"bytes={BLOCK * 20}-"]


def test_wrong_everywhere_leaves_no_file(cache, server):
    server.content = b"an error page"
    with pytest.raises(DataFileError, match=f"does not match the known hash.*{OFFLINE}"):
        find_or_download(the_file(server.url))
    assert len(server.requests) == 3 and os.listdir(cache / "set/raw") == []


# ---- several processes


def in_a_process(cache, file):
    """A Python of its own that looks for ``file`` in ``cache``, and prints where it is."""
    code = (
        "from course_lib.data.files import DataFile, find_or_download; "
        f"print(find_or_download({file!r}, root={str(cache)!r}))"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "TQDM_DISABLE": "1"}, **pipes)


def wait_for(condition, seconds=60):
    end = threading.Event()
    for _ in range(20 * seconds):
        if condition():
            return
        end.wait(0.05)
    raise AssertionError("it did not happen")


def test_four_first_downloads_at_once(cache, server):
    go_on = threading.Event()
    server.behave = [go_on]
    processes = [in_a_process(cache, the_file(server.url)) for _ in range(4)]
    wait_for(lambda: server.requests)  # one of them is in the middle of its download
    threading.Timer(2, go_on.set).start()
    for process in processes:
        answer, errors = process.communicate(timeout=100)
        assert (process.returncode, errors, answer.strip()) == (0, "", str(cache / "set/raw/file.gz"))
    assert (cache / "set/raw/file.gz").read_bytes() == CONTENT
    assert len(server.requests) == 1 and os.listdir(cache / "set/raw") == ["file.gz"]


def test_after_a_process_was_killed_another_goes_on(cache, server):
    never, part = threading.Event(), cache / "set/raw/file.gz.part"
    server.behave = [never]
    process = in_a_process(cache, the_file(server.url))
    try:
        wait_for(lambda: part.is_file() and part.stat().st_size > len(CONTENT) // 3)
    finally:
        process.kill()
        process.communicate()
        never.set()
    have = part.stat().st_size
    assert find_or_download(the_file(server.url), root=cache).read_bytes() == CONTENT
    assert server.requests == [None, f"bytes={have}-"]


# ---- the disk


def test_a_cache_that_cannot_be_written(monkeypatch, server, tmp_path, no_waiting):
    monkeypatch.delenv("COURSE_DATA", raising=False)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "file" / "cache")
    with pytest.raises(DataFileError, match=f"cannot be written .*set COURSE_DATA to a folder that holds.*{OFFLINE}"):
        find_or_download(the_file(server.url))
    assert server.requests == [] and no_waiting == []


def test_a_cache_without_permission(cache, server, monkeypatch, no_waiting):
    def denied(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(DataFileError, match=f"{cache / 'set/raw'} cannot be written .*Permission denied.*{OFFLINE}"):
        find_or_download(the_file(server.url))
    assert server.requests == [] and no_waiting == []


def test_a_full_disk(cache, server, monkeypatch, no_waiting):
    def full(url, part):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_append", full)
    with pytest.raises(DataFileError, match="cannot be written .*No space left"):
        find_or_download(the_file(server.url))
    assert no_waiting == []  # trying again would not help
    shutil.rmtree(cache)
