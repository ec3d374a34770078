"""Finding, checking and downloading the files of a data set.

A file is looked for in this order: the folder that the caller names, ``COURSE_DATA``, the course's cache.
It counts only if its checksum is right. What is missing is downloaded by pooch into the caller's folder or the cache:
a broken download goes on where it stopped, in a later call too, a file takes its final name only when its checksum is
right, and of several processes that miss the same file one downloads it while the others wait.
"""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from course_lib import progress

OFFLINE = "the data set 'digits' works offline"
_RECEIVED = 1 << 14  # a break loses less than this many bytes of what has come
_ROUNDS = 3  # how often each address is tried


class DataFileError(ValueError):
    """A data file is missing, damaged, or cannot be stored; the message says what to do."""


@dataclass(frozen=True)
class DataFile:
    """One file: where it lies under a data folder, its MD5 checksum, and where to download it from."""

    path: str
    md5: str
    urls: tuple[str, ...]


def cache_folder() -> Path:
    """The folder for downloads: the system's usual place for caches."""
    import pooch  # imported here, as below: only a data set that is not built in needs it

    return Path(pooch.os_cache("model-compression-course"))


def data_folders(root: str | Path | None = None) -> list[Path]:
    """The folders that are searched, in order: ``root`` alone if it is given, else ``COURSE_DATA`` and the cache."""
    if root is not None:
        return [Path(root).expanduser()]
    given = os.environ.get("COURSE_DATA")
    return ([Path(given).expanduser()] if given else []) + [cache_folder()]


def find_or_download(file: DataFile, *, root: str | Path | None = None, download: bool = True) -> Path:
    """The path of ``file`` with the right checksum, downloaded if need be.

    Raises:
        DataFileError: it is damaged where it lies, or missing and cannot be downloaded or stored.
    """
    import requests

    folders = data_folders(root)
    for folder in folders:
        if _is_whole(folder / file.path, file.md5):
            return folder / file.path
    wanted = " or ".join(str(folder / file.path) for folder in folders)
    if not download:
        raise DataFileError(f"no file {wanted}. Put it there (from {file.urls[0]}); meanwhile {OFFLINE}.")
    target = folders[-1] / file.path
    try:
        _download(file, folders[-1])
    except (requests.RequestException, ValueError) as error:  # the network, or a wrong checksum
        raise DataFileError(
            f"{file.urls[0]} could not be downloaded ({error}). Put the file at {wanted}; meanwhile {OFFLINE}."
        ) from error
    except OSError as error:
        raise DataFileError(
            f"{target.parent} cannot be written ({error}); set COURSE_DATA to a folder that holds {file.path}, "
            f"or make this one writable. Meanwhile {OFFLINE}."
        ) from error
    return target


def _is_whole(path: Path, md5: str) -> bool:
    """Whether ``path`` is there; a ``DataFileError`` if it cannot be read or has another checksum."""
    import pooch

    try:
        if not path.is_file():
            return False
        found = pooch.file_hash(str(path), alg="md5")
    except OSError as error:
        raise DataFileError(f"{path} cannot be read ({error}). Meanwhile {OFFLINE}.") from error
    if found != md5:
        raise DataFileError(
            f"{path} is damaged: its MD5 checksum is {found}, not {md5}. Delete it; it is then downloaded again. "
            f"Meanwhile {OFFLINE}."
        )
    return True


def _download(file: DataFile, folder: Path) -> None:
    """Have pooch download ``file`` into ``folder``, unless another process has done so meanwhile.

    Its addresses are tried in turns. What the network does wrong, or a wrong checksum, is tried again; what the disk
    does wrong is an error at once.
    """
    import pooch
    from filelock import FileLock

    addresses = itertools.cycle(file.urls)
    part = folder / f"{file.path}.part"

    def resume(url: str, output: str, store: pooch.Pooch) -> None:
        _append(next(addresses), part)
        part.replace(output)  # pooch compares the checksum, then gives it its name

    pooch.get_logger().setLevel("WARNING")  # else it writes a line for every file into a notebook
    retries = _ROUNDS * len(file.urls) - 1
    sums = {file.path: f"md5:{file.md5}"}
    store = pooch.create(folder, base_url="", registry=sums, retry_if_failed=retries, allow_updates=False)
    part.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock", mode=0o666):  # others may use the same cache; when a process dies it is free again
        store.fetch(file.path, downloader=resume)


def _append(url: str, part: Path) -> None:
    """Fetch what is missing of ``url`` at the end of ``part``; start afresh if the server cannot send a range."""
    import requests

    part.touch()
    have = part.stat().st_size
    headers = {"Accept-Encoding": "identity"}  # else a server may pack it once more, or requests unpack it
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(url, headers=headers, stream=True, timeout=(10, 30)) as answer:
        if have and answer.status_code == 416:  # nothing left to send: the part is whole, or longer than the file
            return
        answer.raise_for_status()
        if answer.status_code != 206:
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with part.open("ab" if have else "wb") as stream, progress.bar(total=total, initial=have, unit="B") as bar:
            for block in answer.iter_content(_RECEIVED):
                stream.write(block)
                bar.update(len(block))
    if total is not None and part.stat().st_size < total:
        raise requests.ConnectionError(f"{url} broke off after {part.stat().st_size} of {total} bytes")
