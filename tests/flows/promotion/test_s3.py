"""The registry in S3, by DVC's own way there and a server on loopback: installed beside the project. Run by .ci/run."""

import json
import os
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from flows.promotion import history
from tests.flows.promotion.conftest import Variant, name_remote
from tests.support.params import ROOT

pytestmark = pytest.mark.registry

NEEDED = ("dvc-s3", "moto[s3]", "flask", "flask-cors")
SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()  # until the test has ended
"""
PROMOTE = """
import sys
from flows import promote
from flows.promotion import candidate
candidate.stale = list  # the model was made without DVC
promote.main(sys.argv[1:])
"""
PULL = "from flows import pull_champion; pull_champion.main([])"
# Of eight at once, each of which may see that there is no entry yet; and one by one.
RACE = """
from concurrent.futures import ThreadPoolExecutor
from flows.promotion.remote import configured
remote = configured()
with ThreadPoolExecutor(8) as promoters:
    for entry in range(10):
        made = list(promoters.map(lambda own: remote.make(f"race/{entry}", str(own).encode()), range(8)))
        assert made.count(True) == 1, made
        assert remote.read(f"race/{entry}") == str(made.index(True)).encode()
"""

Python = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """Start Python, in an environment that has what S3 needs and, behind it, all that the project has."""
    folder = tmp_path_factory.mktemp("s3")
    venv.create(folder)
    interpreter = str(folder / "bin/python")
    packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
    Path(packages, "project.pth").write_text(sysconfig.get_path("purelib"))
    subprocess.run((interpreter, "-m", "pip", "install", "--quiet", "--no-compile", *NEEDED), check=True)
    of_nobody = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "us-east-1"}
    (nothing := folder / "nothing").touch()
    nothing_of_mine = {"AWS_CONFIG_FILE": str(nothing), "AWS_SHARED_CREDENTIALS_FILE": str(nothing)}
    env = {**os.environ, **of_nobody, **nothing_of_mine, "PYTHONPATH": str(ROOT)}

    def start(*words: str, cwd: Path = Path()) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            (interpreter, "-c", *words),
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.fixture
def bucket(python: Python, ready: Path) -> Iterator[str]:
    """The URL of a bucket, which is the default remote of the project in the working directory."""
    with python(SERVER) as server:
        assert server.stdout
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        ask("PUT", f"{url}/models")
        name_remote(Path(), "s3://models/here")
        with Path(".dvc/config").open("a") as config:
            config.write(f"    endpointurl = {url}\n")
        yield f"{url}/models/here/registry"
        server.communicate("")


def ask(method: str, url: str, data: bytes = b"") -> bytes:
    """Ask the server of the test as the owner of what is there, whom it takes by its word."""
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=nobody/20261127/us-east-1/s3/aws4_request"}
    answer = requests.request(method, url, data=data, headers=signed, timeout=60)
    answer.raise_for_status()
    return answer.content


def output(process: "subprocess.Popen[str]", code: int = 0) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == code, said
    return said


def test_models_go_into_service_in_s3_and_one_alone_makes_an_entry(
    python: Python, bucket: str, ready: Path, variant: Variant, tmp_path: Path
) -> None:
    project = Path.cwd()
    assert "promoted  by " in output(python(PROMOTE))
    (first,) = history.read(ready)
    assert ask("GET", f"{bucket}/{first.model}/model.onnx") == (ready / first.model / "model.onnx").read_bytes()
    assert json.loads(ask("GET", f"{bucket}/champion.json"))["sha256"] == first.model

    clone = tmp_path / "clone"
    shutil.copytree(project, clone, ignore=shutil.ignore_patterns("registry", "clone"))
    assert f"{first.model}/model.onnx is in service:\n#1" in output(python(PULL, cwd=clone))
    assert history.read(clone / "models/registry") == [first]

    output(python(RACE))
    variant("of the clone")
    shutil.copy2("models/model.onnx", clone / "models")
    variant("of the project")
    force = ("--force", "--reason", "at once")
    at_once = [python(PROMOTE, *force, cwd=place) for place in (project, clone)]
    assert all("promoted by force" in output(process) for process in at_once)
    earlier, entries = sorted((history.read(ready), history.read(clone / "models/registry")), key=len)
    assert [entry.number for entry in entries] == [1, 2, 3]
    assert earlier == entries[:2]

    ask("PUT", f"{bucket}/{entries[-1].model}/model.onnx", b"rot")
    shutil.rmtree(clone / "models/registry")
    assert "model.onnx missing, or not what entry 3 put into service" in output(python(PULL, cwd=clone), code=1)
    assert not (clone / "models/registry/champion.json").exists()
