"""Fetch a dataset's archives, verify them and unpack them where torchvision looks for them.

Of your own images (datasets csv and folder) it takes stock where they lie, and copies nothing.

Reads:  params.yaml (download), the folder of download.path, DATA_MIRROR (a folder or base URL tried before the mirrors)
Writes: data/raw/
Run:    python -m tasks.download
"""

import gzip
import os
import shutil
import sys
import tarfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pooch
import requests
from tqdm import tqdm

from tasks import params, stock
from tasks.datasets import DATASETS, RAW, Archive, Dataset
from tasks.stage import StageError, run, stage

CACHE = Path(".cache/download")  # outside DVC, which removes data/raw before it runs this stage
ATTEMPTS = 3  # rounds over all sources, waiting 1 s, then 2 s between them
TIMEOUT_S = (5, 20)  # to connect, and between two reads
PROBE_S = 8

pooch.get_logger().setLevel("WARNING")  # the lines printed here say more


class SourceError(Exception):
    """A source did not deliver a whole archive."""


def main() -> None:
    with stage("download", reads=[params.inbox()], params=["download"], writes=["data/raw"]) as running:
        p = params.load().download
        name = p.dataset
        if DATASETS[name].format == "files":
            print(f"Taking stock of {p.path}", flush=True)
            taken = stock.take(p)
            taken.write(running.path("data/raw"))
            print(f"{sum(1 for _ in taken.items):,} images of {len(taken.class_names)} classes")
            return
        print(f"Fetching {name}", flush=True)
        unpack(fetch(name), running.path("data/raw") / DATASETS[name].folder)


def sources(name: str) -> list[Path | str]:
    """List the folders and base URLs to try for dataset `name`, in order.

    Raises:
        StageError: DATA_MIRROR names a folder that does not exist.
    """
    dataset = DATASETS[name]
    if dataset.package:
        return [_package_folder(dataset)]
    mirror = os.environ.get("DATA_MIRROR", "")
    if not mirror:
        return list(dataset.mirrors)
    if mirror.startswith(("http://", "https://")):
        return [f"{mirror.rstrip('/')}/{name}/", *dataset.mirrors]
    folder = Path(mirror).expanduser().resolve()
    if not folder.is_dir():
        raise StageError(f"DATA_MIRROR is {mirror!r}, which is neither a folder nor a URL (http://, https://)")
    return [folder / name, *dataset.mirrors]


def fetch(name: str) -> list[Path]:
    """Bring all archives of dataset `name` into the download cache and return their paths, checksums verified.

    Raises:
        StageError: no source delivered one of them; the message lists what each source said.
    """
    places = sources(name)
    folder = CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("tmp*"):  # pooch's name for what a killed run was downloading
        leftover.unlink()
    return [_fetch(archive, name, places, folder) for archive in DATASETS[name].archives]


def unpack(archives: list[Path], folder: Path) -> None:
    """Copy each archive to where torchvision keeps it, and unpack it there.

    A .gz file holds one file of `folder`; a .tar.gz file holds `folder` itself.
    """
    for archive in archives:
        copy = _kept(archive.name, folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(archive, copy)
        if copy.parent == folder:
            with gzip.open(archive) as packed, copy.with_suffix("").open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)
        else:
            _unpack_tar(archive, copy.parent)


def _kept(archive: str, folder: Path) -> Path:
    return (folder.parent if archive.endswith(".tar.gz") else folder) / archive


def _unpack_tar(archive: Path, place: Path) -> None:
    with tarfile.open(archive) as packed:
        for member in packed:
            if contents := packed.extractfile(member):  # None: no regular file
                target = place / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with contents, target.open("wb") as unpacked:
                    shutil.copyfileobj(contents, unpacked, 1 << 20)


def answers(name: str) -> bool:
    """Tell within about ten seconds whether dataset `name` is at hand or one of its sources answers."""
    dataset, found = DATASETS[name], threading.Event()
    names = [archive.name for archive in dataset.archives]
    cached = [CACHE / name / archive for archive in names]
    kept = [_kept(archive, RAW / dataset.folder) for archive in names]
    if any(all(path.is_file() for path in paths) for paths in (cached, kept)):
        return True

    def ask(place: Path | str) -> None:
        archive = dataset.archives[0].name
        if isinstance(place, Path):
            ok = (place / archive).is_file()
        else:
            try:
                # Not HEAD, which some servers refuse; the body is not read.
                with requests.get(place + archive, timeout=PROBE_S, stream=True) as response:
                    ok = response.ok
            except requests.RequestException:
                ok = False
        if ok:
            found.set()

    # Daemons, because a name server that does not answer holds a thread longer than any time-out of requests.
    threads = [threading.Thread(target=ask, args=(place,), daemon=True) for place in sources(name)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PROBE_S
    while not found.is_set() and time.monotonic() < deadline and any(thread.is_alive() for thread in threads):
        found.wait(0.05)
    return found.is_set()


def _fetch(archive: Archive, name: str, places: list[Path | str], folder: Path) -> Path:
    refused: dict[str, str] = {}
    for attempt in range(ATTEMPTS):
        if attempt:
            print(f"{archive.name}: no source delivered it, trying again in {2 ** (attempt - 1)} s", flush=True)
            time.sleep(2 ** (attempt - 1))
        for place in places:
            try:
                return _retrieve(archive, place, folder)
            except SourceError as error:
                refused[_shown(place)] = str(error)
    tried = "".join(f"\n  {place}: {reason}" for place, reason in refused.items())
    raise StageError(
        f"no source delivered {archive.name} ({archive.size} bytes, MD5 {archive.md5}). Tried:{tried}\n"
        f"Set DATA_MIRROR to a folder or base URL that holds {name}/{archive.name}, "
        "or train on what needs no download: make run DATASET=digits"
    )


def _retrieve(archive: Archive, place: Path | str, folder: Path) -> Path:
    transferred = False

    def transfer(source: str, output: str, _: object) -> None:
        nonlocal transferred
        transferred = True
        if isinstance(place, Path):
            _copy(source, output)
        else:
            _download(source, output, archive)
        if (size := Path(output).stat().st_size) != archive.size:
            raise SourceError(f"sent {size} bytes instead of {archive.size}")

    source = str(place / archive.name) if isinstance(place, Path) else place + archive.name
    try:
        path = pooch.retrieve(source, f"md5:{archive.md5}", archive.name, folder, downloader=transfer)
    except ValueError:  # pooch's word for a checksum that does not match
        raise SourceError(f"sent other bytes: their MD5 is not {archive.md5}") from None
    origin = f"from {_shown(place)}" if transferred else "fetched before"
    print(f"{archive.name}: {archive.size:,} bytes, checksum verified, {origin}", flush=True)
    return Path(path)


def _copy(source: str, output: str) -> None:
    try:
        shutil.copyfile(source, output)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise SourceError(error.strerror) from None


def _download(url: str, output: str, archive: Archive) -> None:
    bar = tqdm(
        desc=archive.name, total=archive.size, unit="B", unit_scale=True, leave=False, disable=not sys.stderr.isatty()
    )
    # 64 KiB: pooch reads 1 KiB at a time unless told otherwise.
    download = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=TIMEOUT_S)
    try:
        download(url, output, None)
    except requests.HTTPError as error:
        raise SourceError(f"answered {error.response.status_code} {error.response.reason}") from None
    except requests.RequestException as error:
        raise SourceError(_innermost(error)) from None
    finally:
        bar.close()


def _package_folder(dataset: Dataset) -> Path:
    package, _, rest = dataset.package.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise StageError(
            f"the Python package {package}, which ships this dataset, is not installed: make run installs it"
        )
    return Path(spec.submodule_search_locations[0]) / rest


def _shown(place: Path | str) -> str:
    if isinstance(place, Path):
        return str(place)
    parts = urlsplit(place)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))  # no password in a log


def _innermost(error: BaseException) -> str:
    cause = error.args[0] if error.args else error
    reason = getattr(cause, "reason", cause)
    return str(reason).rpartition("): ")[2]


if __name__ == "__main__":
    run(main)
