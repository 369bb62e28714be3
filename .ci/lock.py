"""Write requirements.txt and requirements-serving.txt from pyproject.toml: `make lock`.

Every package with an extra is listed twice, as `name==1.0` and `name[extra]==1.0`. The pip that comes with Python 3.11
treats the two as different packages: with one of them alone it looks for the other beyond the lock and stops.
"""

import re
import subprocess
from pathlib import Path

COMPILE = (
    "uv",
    "pip",
    "compile",
    "--quiet",
    "--upgrade",
    "--universal",
    "--python-version=3.11",
    "--generate-hashes",
    "--no-strip-extras",
    "--custom-compile-command=make lock",
)


def lock(path: str, *options: str) -> None:
    text = subprocess.run([*COMPILE, *options], check=True, stdout=subprocess.PIPE, text=True).stdout
    blocks = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)
    with Path(path).open("w", encoding="utf-8") as file:
        for block in blocks:
            if re.match(r"[\w.-]+\[", block):
                file.write(re.sub(r"\[.*?\]", "", block, count=1))
            file.write(block)


lock("requirements.txt", "pyproject.toml", "--group=dev", "--group=serving")
lock("requirements-serving.txt", "--group=serving", "--constraints=requirements.txt")
