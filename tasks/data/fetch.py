"""Fetch a dataset's archives from the first source that delivers them whole, and unpack them.

Sources are the folder or URL in DATA_MIRROR, then the public mirrors, unless PUBLIC_MIRRORS is off. If the dataset's
row names other archives that are as good, DATA_MIRROR may have those: all of them, for half a set is none. Archives
stay in `CACHE`, so that none is fetched twice; each is verified by its checksum.
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

from tasks.data import sprites
from tasks.data.datasets import DATASETS, LABELS, RAW, Archive, Dataset, kept
from tasks.data.sprites import SpriteError
from tasks.harness.errors import StageError

CACHE = Path(".cache/download")  # outside DVC, which removes data/raw before it runs this stage
ATTEMPTS = 3  # rounds over all sources, waiting 1 s, then 2 s between them
TIMEOUT_S = (5, 20)  # to connect, and between two reads
PROBE_S = 8

Offer = tuple[Path | str, tuple[Archive, ...]]  # a source, and what may be had from it: all or nothing


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


def fetch(name: str) -> tuple[Dataset, list[Path]]:
    """Bring all archives of dataset `name`, in one of its forms, into the download cache, checksums verified.

    Returns:
        the form, and the paths of its archives.

    Raises:
        StageError: no source delivered one of them; the message lists what each source said.
    """
    pooch.get_logger().setLevel("WARNING")  # the lines printed here say more
    dataset, found = DATASETS[name], sources(name)
    folder = CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("tmp*"):  # pooch's name for what a killed run was downloading
        leftover.unlink()
    paths = [path for archive in dataset.archives for path in _fetch(archive, name, found, folder)]
    return next(form for form in dataset.forms() if form.archives[0].name == paths[0].name), paths


def unpack(archives: list[Path], folder: Path) -> None:
    """Copy each archive to where torchvision keeps it, and unpack it there.

    A .gz file holds one file of `folder`; a .tar.gz file holds `folder` itself; a .bin file is one of its files.
    """
    for archive in archives:
        copy = kept(archive.name, folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(archive, copy)
        if archive.name.endswith(".tar.gz"):
            with tarfile.open(archive) as packed:
                packed.extractall(copy.parent, filter="data")
        elif archive.suffix == ".gz":
            with gzip.open(archive) as packed, copy.with_suffix("").open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)


def answers(name: str) -> bool:
    """Tell within about ten seconds whether dataset `name` is at hand or one of its sources answers."""
    dataset, found = DATASETS[name], threading.Event()
    for form in dataset.forms():
        unpacked = [kept(archive.name, RAW / form.folder) for archive in form.archives]
        if _cached(form, name) or all(path.is_file() for path in unpacked):
            return True

    def ask(source: Path | str, archive: str) -> None:
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
    threads = [
        threading.Thread(target=ask, args=(source, archives[0].delivered), daemon=True)
        for source, archives in _offers(dataset.archives[0], name, sources(name))
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PROBE_S
    while not found.is_set() and time.monotonic() < deadline and any(thread.is_alive() for thread in threads):
        found.wait(0.05)
    return found.is_set()


def _cached(form: Dataset, name: str) -> bool:
    return all((CACHE / name / archive.name).is_file() for archive in form.archives)


def _offers(archive: Archive, name: str, sources: list[Path | str]) -> list[Offer]:
    """List who may have an archive, and who may have those that replace it, which no public mirror has."""
    dataset = DATASETS[name]
    offers: list[Offer] = []
    if dataset.instead and _cached(dataset.instead, name):  # whichever sources there are now
        offers.append((CACHE / name, dataset.instead.archives))
    for source in sources:
        offers.append((source, (archive,)))
        if dataset.instead and source not in dataset.mirrors:
            offers.append((source, dataset.instead.archives))
    return offers


def _fetch(archive: Archive, name: str, sources: list[Path | str], folder: Path) -> list[Path]:
    """Fetch an archive, or those that replace it."""
    refused: list[str] = []
    for attempt in range(ATTEMPTS):
        if attempt:
            print(f"{archive.name}: no source delivered it, trying again in {2 ** (attempt - 1)} s", flush=True)
            time.sleep(2 ** (attempt - 1))
        refused = []
        for source, archives in _offers(archive, name, sources):
            try:
                return _retrieve_all(archives, source, folder)
            except SourceError as error:
                refused.append(f"\n  {_shown(source)}: {error}")
    tried = "".join(refused) or " nothing, no mirror is named"
    instead = DATASETS[name].instead
    others = f" or all of {', '.join(other.delivered for other in instead.archives)}" if instead else ""
    raise StageError(
        f"no source delivered {archive.name} ({archive.size} bytes, MD5 {archive.md5}). Tried:{tried}\n"
        f"Set DATA_MIRROR to a folder or base URL that holds {name}/{archive.name}{others}, "
        "or train on what needs no download: make run DATASET=digits"
    )


def _retrieve_all(archives: tuple[Archive, ...], source: Path | str, folder: Path) -> list[Path]:
    paths: list[Path] = []
    for archive in archives:
        try:
            paths.append(_retrieve(archive, source, folder))
        except SourceError as error:
            if len(archives) == 1:
                raise
            reason = f"{archive.delivered}, one of {len(archives)} files of which all are needed: {error}"
            if paths:  # another source may have more: what was said to come from this one is then of no use
                print(f"{_shown(source)}: {reason}", flush=True)
            raise SourceError(reason) from None
    return paths


def _retrieve(archive: Archive, source: Path | str, folder: Path) -> Path:
    transferred = False

    def transfer(url: str, output: str, _: object) -> None:
        nonlocal transferred
        transferred = True
        if isinstance(source, Path):
            _copy(url, output)
        else:
            _download(url, output, archive)
        if archive.sprite:
            _rebuild(archive, Path(output), folder / LABELS)
        if (size := Path(output).stat().st_size) != archive.size:
            raise SourceError(f"sent {size} bytes instead of {archive.size}")
        if (md5 := pooch.file_hash(output, "md5")) != archive.md5:
            what = f"other images or labels: as {archive.name}" if archive.sprite else "other bytes:"
            raise SourceError(f"sent {what} their MD5 is {md5}, not {archive.md5}")

    url = str(source / archive.delivered) if isinstance(source, Path) else source + archive.delivered
    path = pooch.retrieve(url, f"md5:{archive.md5}", archive.name, folder, downloader=transfer)
    origin = f"from {_shown(source)}" if transferred else "fetched before"
    print(f"{archive.name}: {archive.size:,} bytes, checksum verified, {origin}", flush=True)
    return Path(path)


def _rebuild(archive: Archive, file: Path, labels: Path) -> None:
    """Replace a sprite by the publisher's file of the same images."""
    try:
        file.write_bytes(sprites.batch(archive, file.read_bytes(), labels.read_bytes()))
    except SpriteError as error:
        raise SourceError(str(error)) from None


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
