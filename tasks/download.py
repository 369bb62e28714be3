"""Fetch a dataset's archives, verify them and unpack them where torchvision looks for them.

Of your own images (datasets csv and folder) it takes stock where they lie, and copies nothing.

Reads:  params.yaml (download), the folder of download.path, DATA_MIRROR (a folder or base URL tried before the mirrors)
Writes: data/raw/
Run:    python -m tasks download
"""

from tasks.data import fetch, stock, strangers
from tasks.data.datasets import DATASETS, RAW
from tasks.harness import section
from tasks.harness.stage import stage
from tasks.params.download import Download, source


def main() -> None:
    with stage("download", reads=[source()], params=["download"], writes=["data/raw"]) as running:
        params = section.load(Download)
        strangers.check(RAW)
        dataset = DATASETS[params.dataset]
        if dataset.format == "files":
            print(f"Taking stock of {params.path}", flush=True)
            taken = stock.take(params)
            taken.write(running.path("data/raw"))
            print(f"{sum(1 for _ in taken.items):,} images of {len(taken.class_names)} classes")
            return
        print(f"Fetching {params.dataset}", flush=True)
        form, archives = fetch.fetch(params.dataset)
        fetch.unpack(archives, running.path("data/raw") / form.folder)


if __name__ == "__main__":
    raise SystemExit("the stages have one door: python -m tasks download")
