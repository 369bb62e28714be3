"""Drive the server with wrk, and compare what it answers with what a bare loop could at best: `make load-test`.

Server and client share the machine, so that requests per second say little: the figure is images per CPU-second of the
server over images per CPU-second of the bare loop (bare.py), measured just before and after.

Needs:  wrk, Debian's package of that name
Writes: benchmarks/README.md, between its markers
Run:    python -m benchmarks.load [ROW]...   (a row: any part of its name; then the table is printed only)
"""

import json
import re
import shutil
import sys
import tempfile
import venv
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import psutil
import torch
from PIL import Image

from benchmarks import servers
from benchmarks.__main__ import PYTHON, README, machine, output
from benchmarks.servers import OTHERS, OURS, Server
from tasks.exported.graph import to_onnx
from tasks.exported.metadata import preprocessing
from tasks.harness.code import ROOT
from tasks.model.classifier import Architecture, build

TABLE = re.compile(r"(?<=<!-- load -->\n).*(?=<!-- end of load -->)", re.DOTALL)
SCRIPT = Path(__file__).with_suffix(".lua")
SHAPE = [28, 28, 1]
CLASSES = [str(number) for number in range(10)]
SMALL, LARGE = "the quickstart's", "200 us"
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    SMALL: ("mlp", {"final_relu": False}),
    LARGE: ("cnn", {"channels": [48, 96, 192], "stride": 1, "convolutions": 2, "whitening": 0}),
}
TIMES, WARM_S, SECONDS = 3, 1, 4
PREDICT = "/predict"


@dataclass(frozen=True)
class Row:
    """One line of the table: a load with its bar, which has to be met, and its aim."""

    what: str
    network: str
    clients: int
    bar: float
    aim: float
    images: int = 1  # of a request
    bare: int = 1  # images of a batch of the bare loop
    upload: bool = False  # an image file instead of pixels
    server: Server = OURS


@dataclass(frozen=True)
class Load:
    """What came of one run of wrk."""

    rate: float  # images per CPU-second of the server
    requests_s: float
    p50_ms: float
    p99_ms: float


def main() -> None:
    if not shutil.which("wrk"):
        sys.exit("load-test: wrk is not installed: apt-get install wrk")
    wanted = sys.argv[1:]
    rows = [row for row in ROWS if not wanted or any(word in row.what for word in wanted)]
    lines, missed, tails = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = {network: write_model(folder, network) for network in NETWORKS}
        bodies = write_bodies(folder)
        for row in rows:
            bare, loads = measure(row, models[row.network], bodies)
            ratios = [load.rate / value for load, value in zip(loads, bare, strict=True)]
            lines.append(line(row, bare, loads, ratios))
            print(lines[-1], flush=True)
            if row.server is not OURS:
                continue
            if median(ratios) < row.bar:
                missed.append(f"{row.what}: {median(ratios):.2f}, the bar is {row.bar:g}")
            tails.append(median(load.p99_ms / load.p50_ms for load in loads))
    if tails:
        most = max(tails)
        lines.append(
            f"| p99 over p50, the largest of this server's rows | | | | **{most:.1f}** | ≤ {TAIL[0]} | ≤ {TAIL[1]} |"
        )
        print(lines[-1])
        missed += [f"p99 is {most:.1f} times p50, the bar is {TAIL[0]}"] * (most > TAIL[0])
    if not wanted:
        size = installed_mb()
        lines.append(f"| install of the serving lock | | | | **{size:.0f} MB** | ≤ {SIZE[0]} MB | ≤ {SIZE[1]} MB |")
        print(lines[-1])
        missed += [f"the serving lock takes {size:.0f} MB, the bar is {SIZE[0]}"] * (size > SIZE[0])
        table = "\n".join((*HEAD, *lines, "", f"Measured on {machine()}.", ""))
        README.write_text(TABLE.sub(lambda _: table, README.read_text(encoding="utf-8")), encoding="utf-8")
    if missed:
        sys.exit("\n".join(("load-test: a bar is missed", *missed)))


def measure(row: Row, model: Path, bodies: dict[str, Path]) -> tuple[list[float], list[Load]]:
    """Return images per CPU-second of the bare loop, around each load, and the loads."""
    words = (PYTHON, "-m", "benchmarks.bare", str(model), str(row.bare), *([str(bodies["file"])] if row.upload else []))
    with servers.serving(row.server, model) as (process, url):
        loads, bare = [], [float(output(ROOT, *words))]
        for _ in range(TIMES):
            loads.append(drive(row, process, url, bodies))
            bare.append(float(output(ROOT, *words)))
    return [(before + after) / 2 for before, after in pairwise(bare)], loads


def drive(row: Row, process: psutil.Process, url: str, bodies: dict[str, Path]) -> Load:
    """Have wrk ask for some seconds, and see what that cost the server."""
    if row.upload:
        request = (url + PREDICT, "--", str(bodies["file"]), "Content-Type=image/png")
    elif row.server.json:
        request = (url + row.server.infer, "--", str(bodies["json"]), "Content-Type=application/json")
    else:
        body = bodies[str(row.images)]
        length = body.read_bytes().index(b"}]}") + 3
        request = (url + row.server.infer, "--", str(body), f"Inference-Header-Content-Length={length}")
    words = ("wrk", "-t1", f"-c{row.clients}", "--latency", "-s", str(SCRIPT))
    output(ROOT, *words, f"-d{WARM_S}s", *request)
    before = servers.cpu_seconds(process)
    found = json.loads(output(ROOT, *words, f"-d{SECONDS}s", *request).splitlines()[-1])
    seconds = servers.cpu_seconds(process) - before
    if found["failed"]:
        sys.exit(f"load-test: {row.what}: {found['failed']} of {found['requests']} requests failed")
    rate = found["requests"] * row.images / seconds
    return Load(rate, found["requests"] / SECONDS, found["p50_ms"], found["p99_ms"])


def write_model(folder: Path, name: str) -> Path:
    """Export a network as it is initialised: the time that it takes does not depend on its weights."""
    torch.manual_seed(0)
    network, options = NETWORKS[name]
    architecture = Architecture(network, options, CLASSES, SHAPE, [0.0], [1.0], False)
    exported = to_onnx(build(architecture).eval(), SHAPE, 1.0)
    onnx.helper.set_model_props(exported, {**preprocessing(SHAPE, "stretch"), "class_names": json.dumps(CLASSES)})
    path = folder / f"{network}.onnx"
    path.write_bytes(exported.SerializeToString())
    return path


def write_bodies(folder: Path) -> dict[str, Path]:
    """Write what wrk sends: requests of 1 and of 64 images, and an image file."""
    random = np.random.default_rng(0)
    bodies = {name: folder / name for name in ("1", "64", "file", "json")}
    for count in (1, 64):
        pixels = random.integers(0, 256, (count, *SHAPE), np.uint8)
        size = {"binary_data_size": pixels.nbytes}
        text = {
            "id": "1",  # which kserve needs
            "parameters": {"binary_data_output": True},
            "inputs": [{"parameters": size, "name": "images", "datatype": "UINT8", "shape": list(pixels.shape)}],
        }
        bodies[str(count)].write_bytes(json.dumps(text).encode() + pixels.tobytes())
        if count == 1:
            bodies["json"].write_text(json.dumps({"images": pixels.tolist()}))
    Image.fromarray(pixels[0, ..., 0]).save(bodies["file"], "PNG")
    return bodies


def installed_mb() -> float:
    """Install the serving lock into an environment of its own, and measure its packages, in 10^6 bytes."""
    with tempfile.TemporaryDirectory() as name:
        venv.create(name, with_pip=True)
        site = next(Path(name).glob("lib/python*/site-packages"))
        before = _bytes(site)
        words = ("-m", "pip", "install", "--quiet", "--require-hashes", "-r", "requirements-serving.txt")
        output(ROOT, f"{name}/bin/python", *words)
        return (_bytes(site) - before) / 1e6


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))


def line(row: Row, bare: list[float], loads: list[Load], ratios: list[float]) -> str:
    """Write a row of the table: medians, and of the comparison the spread from the least to the most, too."""
    spread = f"**{median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
    middle = sorted(loads, key=lambda load: load.rate)[len(loads) // 2]
    tail = f"{middle.p50_ms:.2f} / {middle.p99_ms:.2f} ms"
    limits = f"≥ {row.bar:g} | ≥ {row.aim:g}" if row.server is OURS else "- | -"
    rate = median(load.rate for load in loads)
    return f"| {row.what} | {rate:,.0f} | {median(bare):,.0f} | {tail} | {spread} | {limits} |"


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count} clients"


HEAD = (
    "| what | images per CPU-second | bare loop | p50 / p99 | ratio | bar | aim |",
    "|---|---:|---:|---:|---:|---:|---:|",
)
TAIL = 5, 3  # p99 over p50
SIZE = 250, 225  # MB
ROWS = [
    *(
        Row(f"one image a request, {_clients(clients)}, network: {network}", network, clients, bar, aim)
        for network, limits in (
            (SMALL, ((1, 0.13, 0.25), (8, 0.35, 0.45), (64, 0.55, 0.7))),
            (LARGE, ((1, 0.35, 0.5), (8, 0.65, 0.75), (64, 0.65, 0.75))),
        )
        for clients, bar, aim in limits
    ),
    Row(f"64 images a request, against batches of 64, network: {SMALL}", SMALL, 8, 0.65, 0.8, 64, 64),
    Row(f"64 images a request, against batches of 64, network: {LARGE}", LARGE, 8, 0.9, 0.95, 64, 64),
    Row(f"one image a request, 64 clients, against batches of 64, network: {LARGE}", LARGE, 64, 0.65, 0.75, bare=64),
    Row(f"an image file, 8 clients, against decode and run, network: {LARGE}", LARGE, 8, 0.45, 0.6, upload=True),
    *(
        Row(f"{one.name}, one image a request, {_clients(clients)}, network: {SMALL}", SMALL, clients, 0, 0, server=one)
        for one in OTHERS
        for clients in (1, 8, 64)
    ),
]

if __name__ == "__main__":
    main()
