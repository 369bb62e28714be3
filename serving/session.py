"""Open models/model.onnx on one execution provider, the way the parity gate checked it."""

import os
import sys

import onnxruntime

CPU = "CPUExecutionProvider"
# Best first. Those that compute in half precision unless told otherwise (CoreML, TensorRT) are used when named.
ACCELERATORS = ("CUDAExecutionProvider", "MIGraphXExecutionProvider")


class SessionError(Exception):
    """The model cannot be opened."""


class ProviderError(SessionError):
    """The execution provider that was asked for is missing, or did not run the model."""


def candidates(requested: str) -> list[str]:
    """List the providers to try, best first: for `auto` the accelerators that this ONNX Runtime has, then the CPU.

    Raises:
        ProviderError: this ONNX Runtime does not have the provider that was named.
    """
    available = onnxruntime.get_available_providers()
    if requested == "auto":
        return [*(name for name in ACCELERATORS if name in available), CPU]
    if requested not in available:
        raise ProviderError(
            f"{requested} is not in this ONNX Runtime {onnxruntime.__version__}, which has {', '.join(available)}; "
            "name one of these, or auto, or install the build of ONNX Runtime that has it"
        )
    return [requested]


def open_session(
    model: str | os.PathLike[str] | bytes, requested: str = "auto", threads: int = 0, *, record_nodes: bool = False
) -> onnxruntime.InferenceSession:
    """Open `model` (a path or its bytes) on one provider alone; `get_providers()[0]` names it.

    Args:
        requested: a provider's name, or `auto`: the first of `candidates` that can run the model. ONNX Runtime lists an
            accelerator that it was built for where there is none in the machine, too.
        threads: on the CPU; 0 lets ONNX Runtime choose.
        record_nodes: for `get_provider_graph_assignment_info`.

    Raises:
        ProviderError: the provider that was named is missing or cannot run the model.
        SessionError: the CPU cannot either.
    """
    *accelerators, last = candidates(requested)
    for provider in accelerators:
        try:
            return _open_on(provider, model, threads, record_nodes)
        except ProviderError as error:
            print(f"{error}; trying the next best", file=sys.stderr)
    return _open_on(last, model, threads, record_nodes)


def _open_on(
    provider: str, model: str | os.PathLike[str] | bytes, threads: int, record_nodes: bool
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if record_nodes:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if provider != CPU:
        # Without this ONNX Runtime quietly gives the CPU what the accelerator does not take (onnxruntime issue 23372).
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        # TF32 keeps 10 bits of the mantissa. NVIDIA's libraries read this when they start, called by TensorRT, too.
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    # https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
    settings = {"use_tf32": "0"} if provider == "CUDAExecutionProvider" else {}
    source = model if isinstance(model, bytes) else os.fspath(model)
    try:
        session = onnxruntime.InferenceSession(source, options, providers=[(provider, settings)])
    except Exception as error:  # ONNX Runtime's own exceptions have no common base below Exception
        failure = SessionError if provider == CPU else ProviderError
        raise failure(f"{provider} cannot run the model: {error}") from None
    if session.get_providers()[0] != provider:
        raise ProviderError(
            f"{provider} was asked for, but ONNX Runtime runs the model on {session.get_providers()[0]}"
        )
    return session
