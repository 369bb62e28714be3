"""Whatever makes results differ is off."""

import pytest
import torch

from tasks.model.cores import physical_cores
from tasks.model.determinism import set_up


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
