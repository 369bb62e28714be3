"""Whatever makes results differ is off."""

import platform
import subprocess
import sys

import pytest
import torch

from tasks.model.determinism import physical_cores, set_up
from tests.support.params import ROOT


def test_threads_are_the_physical_cores_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    set_up(None)
    assert torch.get_num_threads() == physical_cores()
    monkeypatch.setattr("psutil.cpu_count", lambda logical: None)
    assert physical_cores() >= 1
    set_up(1)
    assert torch.get_num_threads() == 1


def test_everything_that_makes_results_differ_is_off() -> None:
    set_up(1)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.benchmark


STEPS = """
import resource, sys, torch
from tasks.model.determinism import set_up
if sys.argv[1] == "kept":
    set_up(1)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(2_000_000) for _ in range(6)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(min([faults() for _ in range(8)]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries are left as they are")
def test_the_next_step_gets_the_memory_that_a_step_has_freed() -> None:
    def page_faults(how: str) -> int:
        words = (sys.executable, "-c", STEPS, how)
        return int(subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout)

    assert page_faults("as it is") > 5000
    assert page_faults("kept") < 500
