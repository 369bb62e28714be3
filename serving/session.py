"""Open models/model.onnx on one execution provider, the way the parity gate checked it."""

import os
import sys

import onnxruntime

from serving.files import open_regular, printable

CPU = "CPUExecutionProvider"
# Best first. Those that compute in half precision unless told otherwise (CoreML, TensorRT) are used when named. So is
# OpenVINO's, which no measurement has shown to be faster than the CPU's own: docs/deployment.md.
ACCELERATORS = ("CUDAExecutionProvider", "MIGraphXExecutionProvider")
MAX_BYTES = 2**31 - 1  # of a model: protobuf, which ONNX files are, has no larger ones
FATAL = 4  # ONNX Runtime's severity; what it logs of an error below this it also raises


class SessionError(Exception):
    """The model cannot be opened or run."""


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
    model: str | os.PathLike[str] | bytes,
    requested: str = "auto",
    threads: int = 0,
    *,
    record_nodes: bool = False,
    name: str | os.PathLike[str] = "",
) -> onnxruntime.InferenceSession:
    """Open `model` (a path or its bytes) on one provider alone; `get_providers()[0]` names it.

    Args:
        requested: a provider's name, or `auto`: the first of `candidates` that can run the model. ONNX Runtime lists an
            accelerator that it was built for where there is none in the machine, too.
        threads: on the CPU; 0 lets ONNX Runtime choose.
        record_nodes: for `get_provider_graph_assignment_info`.
        name: what errors call a model that is given as bytes.

    Raises:
        ProviderError: the provider that was named is missing or cannot run the model.
        SessionError: the CPU cannot either, or there is no such file.
    """
    *accelerators, last = candidates(requested)
    content = model if isinstance(model, bytes) else read_model(model)
    called = f"the model {os.fspath(name if isinstance(model, bytes) else model)}".rstrip()
    for provider in accelerators:
        try:
            return _open_on(provider, content, called, threads, record_nodes)
        except ProviderError as error:
            print(f"{printable(str(error))}; trying the next best", file=sys.stderr)
    return _open_on(last, content, called, threads, record_nodes)


def one_line(error: Exception) -> str:
    """Give what ONNX Runtime says, which may go over several lines and quote the model, as one."""
    return printable(" ".join(str(error).split()))


def read_model(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a model.

    Raises:
        SessionError: there is no such file, or it cannot be read, or is larger than any model.
    """
    try:
        with open_regular(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > MAX_BYTES:
                raise SessionError(f"{path} has {size:,} bytes; a model has at most {MAX_BYTES:,}")
            return file.read()
    except FileNotFoundError:
        raise SessionError(
            f"{path} does not exist: make run trains models/model.onnx, dvc checkout or dvc pull bring it back"
        ) from None
    except OSError as error:
        raise SessionError(f"{path} cannot be read as a model: {error.strerror}") from None


def _open_on(
    provider: str, content: bytes, name: str, threads: int, record_nodes: bool
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = FATAL
    # A model is one file: its weights are looked for where no other can be.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    if record_nodes:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if provider != CPU:
        # Without this ONNX Runtime quietly gives the CPU what the accelerator does not take (onnxruntime issue 23372).
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        # TF32 keeps 10 bits of the mantissa. NVIDIA's libraries read this when they start, called by TensorRT, too.
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    providers = [(provider, _settings(provider, threads))]
    try:
        # Without fallback: after a failure, in a run, too, it would try another provider and print that it does.
        session = onnxruntime.InferenceSession(content, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's own exceptions have no common base below Exception
        failure = SessionError if provider == CPU else ProviderError
        raise failure(f"{provider} cannot run {name}: {one_line(error)}") from None
    if session.get_providers()[0] != provider:
        raise ProviderError(f"{provider} was asked for, but ONNX Runtime runs {name} on {session.get_providers()[0]}")
    return session


def _settings(provider: str, threads: int) -> dict[str, str]:
    """Return the options that keep a provider to float32, whatever the hardware would do faster."""
    match provider:
        case "CUDAExecutionProvider":  # https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
            return {"use_tf32": "0"}
        case "OpenVINOExecutionProvider":  # .../OpenVINO-ExecutionProvider.html; its threads are its own
            return {"precision": "ACCURACY", **({"num_of_threads": str(threads)} if threads else {})}
        case _:
            return {}
