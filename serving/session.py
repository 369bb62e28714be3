"""Open models/model.onnx on one execution provider, the way the parity gate checked it."""

import os

import onnxruntime

CPU = "CPUExecutionProvider"
# Best first. Those that compute in half precision unless told otherwise (CoreML, TensorRT) are used when named.
ACCELERATORS = ("CUDAExecutionProvider", "MIGraphXExecutionProvider")


class SessionError(Exception):
    """The model cannot be opened."""


class ProviderError(SessionError):
    """The execution provider that was asked for is missing, or did not run the model."""


def choose_provider(requested: str) -> str:
    """Resolve `auto` to the best accelerator that this ONNX Runtime has, else the CPU.

    Raises:
        ProviderError: this ONNX Runtime does not have the provider that was named.
    """
    available = onnxruntime.get_available_providers()
    if requested == "auto":
        return next((name for name in ACCELERATORS if name in available), CPU)
    if requested not in available:
        raise ProviderError(
            f"{requested} is not in this ONNX Runtime {onnxruntime.__version__}, which has {', '.join(available)}; "
            "name one of these, or auto, or install the build of ONNX Runtime that has it"
        )
    return requested


def open_session(
    model: str | os.PathLike[str] | bytes,
    provider: str,
    threads: int = 0,
    options: onnxruntime.SessionOptions | None = None,
) -> onnxruntime.InferenceSession:
    """Open `model` (a path or its bytes) on `provider` alone.

    Args:
        provider: a name from `choose_provider`.
        threads: on the CPU; 0 lets ONNX Runtime choose.

    Raises:
        ProviderError: the provider is there but cannot run the model.
        SessionError: the CPU cannot either.
    """
    options = options or onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if provider != CPU:
        # Without this ONNX Runtime quietly gives the CPU what the accelerator does not take (onnxruntime issue 23372).
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    # TF32 keeps 10 bits of the mantissa: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
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
