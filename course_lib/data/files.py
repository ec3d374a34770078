"""Finding, checking and downloading the files of a data set.

A file is looked for in this order: the folder that the caller names, ``COURSE_DATA``, the course's cache.
It counts only if its checksum is right. What is missing is downloaded into the caller's folder or the cache:
a broken download goes on where it stopped, and a file takes its final name only when it is whole.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OFFLINE = "the data set 'digits' works offline"
_BLOCK = 1 << 18
_RECEIVED = 1 << 14  # a break loses less than this many bytes of what has come


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
    import pooch  # imported here: only a data set that is not built in needs it

    return Path(pooch.os_cache("model-compression-course"))


def data_folders(root: str | Path | None = None) -> list[Path]:
    """The folders that are searched, in order: ``root`` alone if it is given, else ``COURSE_DATA`` and the cache."""
    if root is not None:
        return [Path(root)]
    given = os.environ.get("COURSE_DATA")
    return ([Path(given)] if given else []) + [cache_folder()]


def find_or_download(file: DataFile, *, root: str | Path | None = None, download: bool = True) -> Path:
    """The path of ``file`` with the right checksum, downloaded if need be.

    Raises:
        DataFileError: it is damaged where it lies, or missing and cannot be downloaded or stored.
    """
    import requests  # imported here, as below: only a data set that is not built in needs it

    folders = data_folders(root)
    for folder in folders:
        if _is_whole(folder / file.path, file.md5):
            return folder / file.path
    wanted = " or ".join(str(folder / file.path) for folder in folders)
    if not download:
        raise DataFileError(f"no file {wanted}. Put it there (from {file.urls[0]}); meanwhile {OFFLINE}.")
    target = folders[-1] / file.path
    try:
        return _download(file.urls, target, file.md5)
    except requests.RequestException as error:
        raise DataFileError(
            f"{file.urls[0]} could not be downloaded ({error}). Put the file at {wanted}; meanwhile {OFFLINE}."
        ) from error
    except OSError as error:
        raise DataFileError(
            f"{target.parent} cannot be written ({error}); set COURSE_DATA to a folder that holds {file.path}, "
            f"or make this one writable. Meanwhile {OFFLINE}."
        ) from error


def _is_whole(path: Path, md5: str) -> bool:
    """Whether ``path`` is there; a ``DataFileError`` if it cannot be read or has another checksum."""
    try:
        if not path.is_file():
            return False
        found = md5_of(path)
    except OSError as error:
        raise DataFileError(f"{path} cannot be read ({error}). Meanwhile {OFFLINE}.") from error
    if found != md5:
        raise DataFileError(
            f"{path} is damaged: its MD5 checksum is {found}, not {md5}. Delete it; it is then downloaded again. "
            f"Meanwhile {OFFLINE}."
        )
    return True


def md5_of(path: Path) -> str:
    """The MD5 checksum of a file, as 32 hexadecimal digits."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _download(urls: Sequence[str], target: Path, md5: str, *, rounds: int = 3, wait: float = 1.0) -> Path:
    """Download to ``target.part`` from the first address that answers, and rename when the checksum is right.

    What the network does wrong is tried again; what the disk does wrong is an error at once.
    """
    import requests

    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    problem = requests.RequestException("no address given")
    for attempt in range(rounds):
        for url in urls:
            try:
                _append(url, part)
            except requests.RequestException as error:
                problem = error
                continue
            if md5_of(part) == md5:
                part.replace(target)
                return target
            part.unlink()
            problem = requests.RequestException(f"what {url} sent does not have the checksum {md5}")
        if attempt + 1 < rounds:
            time.sleep(wait * 2**attempt)
    raise problem


def _append(url: str, part: Path) -> None:
    """Fetch what is missing of ``url`` at the end of ``part``; start afresh if the server cannot send a range."""
    import requests
    from tqdm.auto import tqdm

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
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, delay=2, leave=False)
        with part.open("ab" if have else "wb") as stream, bar:
            for block in answer.iter_content(_RECEIVED):
                stream.write(block)
                bar.update(len(block))
    if total is not None and part.stat().st_size < total:
        raise requests.ConnectionError(f"{url} broke off after {part.stat().st_size} of {total} bytes")
