"""Fetch a dataset's archives from the first source that delivers them whole, and unpack them.

Sources are the folder or URL in DATA_MIRROR, then the public mirrors, unless PUBLIC_MIRRORS is off. Archives stay in
`CACHE`, so that none is fetched twice; each is verified by its checksum.
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

from tasks.data.datasets import DATASETS, RAW, Archive, Dataset, kept
from tasks.harness.errors import StageError

CACHE = Path(".cache/download")  # outside DVC, which removes data/raw before it runs this stage
ATTEMPTS = 3  # rounds over all sources, waiting 1 s, then 2 s between them
TIMEOUT_S = (5, 20)  # to connect, and between two reads
PROBE_S = 8


class SourceError(Exception):
    """A source did not deliver a whole archive."""


def sources(name: str) -> list[Path | str]:
    """List the folders and base URLs to try for dataset `name`, in order.

    Raises:
        StageError: DATA_MIRROR names a folder that does not exist, or PUBLIC_MIRRORS is neither on nor off.
    """
    dataset = DATASETS[name]
    if dataset.package:
        return [_package_folder(dataset)]
    public = os.environ.get("PUBLIC_MIRRORS") or "on"
    if public not in ("on", "off"):
        raise StageError(f"PUBLIC_MIRRORS is {public!r}: it should be on, or off where only DATA_MIRROR may be asked")
    mirrors = dataset.mirrors if public == "on" else ()
    mirror = os.environ.get("DATA_MIRROR", "")
    if not mirror:
        return list(mirrors)
    if mirror.startswith(("http://", "https://")):
        return [f"{mirror.rstrip('/')}/{name}/", *mirrors]
    folder = Path(mirror).expanduser().resolve()
    if not folder.is_dir():
        raise StageError(f"DATA_MIRROR is {mirror!r}, which is neither a folder nor a URL (http://, https://)")
    return [folder / name, *mirrors]


def fetch(name: str) -> list[Path]:
    """Bring all archives of dataset `name` into the download cache and return their paths, checksums verified.

    Raises:
        StageError: no source delivered one of them; the message lists what each source said.
    """
    pooch.get_logger().setLevel("WARNING")  # the lines printed here say more
    found = sources(name)
    folder = CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("tmp*"):  # pooch's name for what a killed run was downloading
        leftover.unlink()
    return [_fetch(archive, name, found, folder) for archive in DATASETS[name].archives]


def unpack(archives: list[Path], folder: Path) -> None:
    """Copy each archive to where torchvision keeps it, and unpack it there.

    A .gz file holds one file of `folder`; a .tar.gz file holds `folder` itself.
    """
    for archive in archives:
        copy = kept(archive.name, folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(archive, copy)
        if copy.parent == folder:
            with gzip.open(archive) as packed, copy.with_suffix("").open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)
        else:
            with tarfile.open(archive) as packed:
                packed.extractall(copy.parent, filter="data")


def answers(name: str) -> bool:
    """Tell within about ten seconds whether dataset `name` is at hand or one of its sources answers."""
    dataset, found = DATASETS[name], threading.Event()
    names = [archive.name for archive in dataset.archives]
    cached = [CACHE / name / archive for archive in names]
    unpacked = [kept(archive, RAW / dataset.folder) for archive in names]
    if any(all(path.is_file() for path in paths) for paths in (cached, unpacked)):
        return True

    def ask(source: Path | str) -> None:
        archive = dataset.archives[0].name
        if isinstance(source, Path):
            ok = (source / archive).is_file()
        else:
            try:
                # Not HEAD, which some servers refuse; the body is not read.
                with requests.get(source + archive, timeout=PROBE_S, stream=True) as response:
                    ok = response.ok
            except requests.RequestException:
                ok = False
        if ok:
            found.set()

    # Daemons, because a name server that does not answer holds a thread longer than any time-out of requests.
    threads = [threading.Thread(target=ask, args=(source,), daemon=True) for source in sources(name)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PROBE_S
    while not found.is_set() and time.monotonic() < deadline and any(thread.is_alive() for thread in threads):
        found.wait(0.05)
    return found.is_set()


def _fetch(archive: Archive, name: str, sources: list[Path | str], folder: Path) -> Path:
    refused: dict[str, str] = {}
    for attempt in range(ATTEMPTS):
        if attempt:
            print(f"{archive.name}: no source delivered it, trying again in {2 ** (attempt - 1)} s", flush=True)
            time.sleep(2 ** (attempt - 1))
        for source in sources:
            try:
                return _retrieve(archive, source, folder)
            except SourceError as error:
                refused[_shown(source)] = str(error)
    tried = "".join(f"\n  {source}: {reason}" for source, reason in refused.items()) or " nothing, no mirror is named"
    raise StageError(
        f"no source delivered {archive.name} ({archive.size} bytes, MD5 {archive.md5}). Tried:{tried}\n"
        f"Set DATA_MIRROR to a folder or base URL that holds {name}/{archive.name}, "
        "or train on what needs no download: make run DATASET=digits"
    )


def _retrieve(archive: Archive, source: Path | str, folder: Path) -> Path:
    transferred = False

    def transfer(url: str, output: str, _: object) -> None:
        nonlocal transferred
        transferred = True
        if isinstance(source, Path):
            _copy(url, output)
        else:
            _download(url, output, archive)
        if (size := Path(output).stat().st_size) != archive.size:
            raise SourceError(f"sent {size} bytes instead of {archive.size}")
        if (md5 := pooch.file_hash(output, "md5")) != archive.md5:
            raise SourceError(f"sent other bytes: their MD5 is {md5}, not {archive.md5}")

    url = str(source / archive.name) if isinstance(source, Path) else source + archive.name
    path = pooch.retrieve(url, f"md5:{archive.md5}", archive.name, folder, downloader=transfer)
    origin = f"from {_shown(source)}" if transferred else "fetched before"
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


def _shown(source: Path | str) -> str:
    if isinstance(source, Path):
        return str(source)
    parts = urlsplit(source)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))  # no password in a log


def _innermost(error: BaseException) -> str:
    cause = error.args[0] if error.args else error
    reason = getattr(cause, "reason", cause)
    return str(reason).rpartition("): ")[2]
