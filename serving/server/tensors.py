"""The Open Inference Protocol's request and response, in JSON and in binary: values in, values out.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md, and of
Triton's extensions binary tensor data, classification and raw requests:
https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

import json
import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.model import OUTPUTS
from serving.server.refusal import Header, Refusal

INPUT, DATATYPE = "images", "UINT8"
LENGTH = b"inference-header-content-length"
CACHED = 4096  # bytes of a request's JSON, up to which what it says is remembered
MOST = 2**31  # images: more than any limit, and few enough that numbers computed from it can be printed
LONGEST_US = 2**53  # that a request may wait: in seconds a float can still say it
BINARY = (b"content-type", b"application/octet-stream")
TEXT = (b"content-type", b"application/json")

Shape = tuple[int, int, int]  # (H, W, C) of an image


@dataclass(frozen=True)
class Output:
    """What a request wants of one output."""

    name: str
    binary: bool
    classes: int  # the most probable ones, as strings; 0: the tensor itself


@dataclass(frozen=True)
class Request:
    """What a request asks, but for the pixels that follow its JSON."""

    count: int  # of images
    outputs: tuple[Output, ...]
    id: str | None = None
    timeout_s: float = math.inf
    pixels: bytes | None = field(default=None, repr=False)  # where the JSON holds them


RAW = tuple(Output(name, True, 0) for name in OUTPUTS)


def parse(body: bytes, header_length: int | None, shape: Shape) -> tuple[Request, bytes | memoryview]:
    """Read a request, and return it with the pixels of its images, `uint8 [count, H, W, C]` in C order.

    Args:
        header_length: of the JSON in front of the binary data; None: all is JSON, 0: there is none.
        shape: of the model's images.

    Raises:
        Refusal: says what is wrong with it.
    """
    if header_length == 0:
        return _raw(body, shape), body
    text = body if header_length is None else body[:header_length]
    if header_length is not None and header_length > len(body):
        raise Refusal(400, f"Inference-Header-Content-Length is {header_length}, the body has {len(body)} bytes")
    request = (_remembered if len(text) <= CACHED else _parse)(text, shape)
    pixels = memoryview(body)[len(text) :]
    if request.pixels is not None:
        if pixels:
            raise Refusal(400, f"{len(pixels)} bytes follow the JSON, whose input {INPUT!r} has its data inside")
        return request, request.pixels
    if len(pixels) != (expected := request.count * math.prod(shape)):
        raise Refusal(400, f"{len(pixels)} bytes follow the JSON, binary_data_size of {INPUT!r} is {expected}")
    return request, pixels


def _raw(body: bytes, shape: Shape) -> Request:
    count, rest = divmod(len(body), math.prod(shape))
    if rest or not count:
        raise Refusal(400, f"a raw request of {len(body)} bytes; an image {_of(shape)} has {math.prod(shape)}")
    return Request(count, RAW)


def _parse(text: bytes, shape: Shape) -> Request:
    contents = json_object(text)
    parameters = _parameters(contents, "the request")
    one = _one_input(contents)
    name = one.get("name")
    if name != INPUT:
        raise Refusal(400, f"unexpected inference input {_short(name)}; the model takes {INPUT!r}")
    if one.get("datatype") != DATATYPE:
        raise Refusal(400, f"datatype of input {INPUT!r} is {_short(one.get('datatype'))}; {DATATYPE} is expected")
    count = _count(one.get("shape"), shape)
    size = _parameters(one, f"input {INPUT!r}").get("binary_data_size")
    if size is None:
        pixels = _pixels(one.get("data"), count, shape)
    elif "data" in one:
        raise Refusal(400, f"input {INPUT!r} has both data and binary_data_size")
    elif type(size) is not int or size != count * math.prod(shape):
        raise Refusal(400, f"binary_data_size of {INPUT!r} is {_short(size)}; its shape has {count * math.prod(shape)}")
    else:
        pixels = None
    return Request(count, _outputs(contents, parameters), _id(contents), _timeout_s(parameters), pixels)


_remembered = lru_cache(maxsize=256)(_parse)


def json_object(text: bytes) -> dict[str, Any]:
    """Parse the JSON of a request.

    Raises:
        Refusal: it is none, or no object.
    """
    try:
        contents = json.loads(text)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error).partition(";")[0]
        raise Refusal(400, f"failed to parse the request's JSON: {why}") from None
    if not isinstance(contents, dict):
        raise Refusal(400, f"the request's JSON is {_short(contents)}, not an object")
    return contents


def _parameters(contents: dict[str, Any], where: str) -> dict[str, Any]:
    match contents.get("parameters", {}):
        case dict() as parameters:
            return parameters
        case other:
            raise Refusal(400, f"parameters of {where} is {_short(other)}, not an object")


def _one_input(contents: dict[str, Any]) -> dict[str, Any]:
    match contents.get("inputs"):
        case [dict() as one]:
            return one
        case list() as several:
            raise Refusal(400, f"{len(several)} inputs; one object is expected: the model takes {INPUT!r} alone")
    raise Refusal(400, "the request has no array of inputs")


def _count(found: object, shape: Shape) -> int:
    match found:
        case [int(count), *rest] if set(map(type, found)) == {int} and rest == list(shape) and 1 <= count < MOST:
            return count
    raise Refusal(400, f"shape of input {INPUT!r} is {_short(found)}; {_of((-1, *shape))} is expected, with 1 or more")


def _pixels(data: object, count: int, shape: Shape) -> bytes:
    if not isinstance(data, list):
        raise Refusal(400, f"input {INPUT!r} has no array of data")
    try:
        while data and isinstance(data[0], list):
            if len(set(map(len, data))) > 1:
                raise TypeError
            data = list(chain.from_iterable(data))
        # Not by numpy, which makes of one long string among many short ones as many long ones.
        pixels = bytes(data) if set(map(type, data)) <= {int} else None
    except TypeError:
        raise Refusal(
            400, f"data of input {INPUT!r} is no tensor: its arrays differ in length, or are too deep"
        ) from None
    except (ValueError, OverflowError):
        pixels = None
    if len(data) != count * math.prod(shape):
        raise Refusal(400, f"data of input {INPUT!r} has {len(data)} values, its shape {count * math.prod(shape)}")
    if pixels is None:
        at, value = next((at, one) for at, one in enumerate(data) if type(one) is not int or not 0 <= one <= 255)
        expected = "whole numbers from 0 to 255 are expected"
        raise Refusal(400, f"value {at} in data of input {INPUT!r} is {_short(value)}; {expected}")
    return pixels


def _outputs(contents: dict[str, Any], parameters: dict[str, Any]) -> tuple[Output, ...]:
    all_binary = _flag(parameters, "binary_data_output", "the request")
    match contents.get("outputs", []):
        case []:
            return tuple(Output(name, all_binary, 0) for name in OUTPUTS)
        case [*wanted] if all(isinstance(one, dict) for one in wanted):
            outputs = tuple(_output(one, all_binary) for one in wanted)
            if len({one.name for one in outputs}) < len(outputs):
                raise Refusal(400, "an output is asked for twice")
            return outputs
        case other:
            raise Refusal(400, f"outputs is {_short(other)}, not an array of objects")


def _output(wanted: dict[str, Any], all_binary: bool) -> Output:
    name = wanted.get("name")
    if name not in OUTPUTS:
        raise Refusal(400, f"unexpected inference output {_short(name)}; the model has {', '.join(OUTPUTS)}")
    parameters = _parameters(wanted, f"output {name!r}")
    classes = parameters.get("classification", 0)
    if type(classes) is not int or classes < 0 or (not classes and "classification" in parameters):
        raise Refusal(400, f"classification of output {name!r} is {_short(classes)}; a number from 1 is expected")
    return Output(str(name), _flag(parameters, "binary_data", f"output {name!r}", all_binary), classes)


def _flag(parameters: dict[str, Any], name: str, where: str, default: bool = False) -> bool:
    match parameters.get(name, default):
        case bool(flag):
            return flag
        case other:
            raise Refusal(400, f"{name} of {where} is {_short(other)}, not true or false")


def _id(contents: dict[str, Any]) -> str | None:
    match contents.get("id"):
        case str() | None as found:
            return found
        case other:
            raise Refusal(400, f"id is {_short(other)}, not a string")


def _timeout_s(parameters: dict[str, Any]) -> float:
    match parameters.get("timeout", 0):
        case int(microseconds) if type(microseconds) is int and microseconds >= 0:
            return min(microseconds, LONGEST_US) / 1e6 or math.inf
        case other:
            raise Refusal(400, f"timeout is {_short(other)}; microseconds, a whole number, are expected")


def respond(
    request: Request,
    model: str,
    version: str,
    class_names: Sequence[str],
    found: dict[str, NDArray[np.float32]],
) -> tuple[list[Header], bytes]:
    """Write the response: its headers, and its body.

    Args:
        found: of each of OUTPUTS `float32 [count, classes]`.
    """
    if not any(one.classes for one in request.outputs) and all(one.binary for one in request.outputs):
        # What a client in a hurry asks for: of this response nothing but the numbers and the id is its own.
        text = _binary(model, version, request.outputs, found[OUTPUTS[0]].shape)
        blobs = [found[one.name].tobytes() for one in request.outputs]
    else:
        parts = [_part(one, found[one.name], class_names) for one in request.outputs]
        text = _head(model, version, [described for described, _ in parts])
        blobs = [blob for _, blob in parts if blob is not None]
    if request.id is not None:
        text = b'{"id":%s,%s' % (json.dumps(request.id).encode(), text[1:])
    if not any(one.binary for one in request.outputs):
        return [TEXT], text
    return [BINARY, (LENGTH, b"%d" % len(text))], b"".join((text, *blobs))


@lru_cache(maxsize=256)
def _binary(model: str, version: str, outputs: tuple[Output, ...], shape: tuple[int, ...]) -> bytes:
    size = 4 * math.prod(shape)
    return _head(model, version, [_described(one.name, "FP32", shape, size) for one in outputs])


def _head(model: str, version: str, outputs: list[dict[str, Any]]) -> bytes:
    contents = {"model_name": model, "model_version": version, "outputs": outputs}
    return json.dumps(contents, separators=(",", ":")).encode()


def _part(
    wanted: Output, found: NDArray[np.float32], class_names: Sequence[str]
) -> tuple[dict[str, Any], bytes | None]:
    """Return what the JSON says of an output, and what follows the JSON: None where the numbers are inside."""
    if not wanted.classes:
        if wanted.binary:
            return _described(wanted.name, "FP32", found.shape, found.nbytes), found.tobytes()
        return _described(wanted.name, "FP32", found.shape) | {"data": found.ravel().tolist()}, None
    rows = _classified(found, wanted.classes, class_names)
    shape = (len(rows), len(rows[0]))
    strings = [text for row in rows for text in row]
    if not wanted.binary:
        return _described(wanted.name, "BYTES", shape) | {"data": strings}, None
    encoded = [text.encode("utf-8", "backslashreplace") for text in strings]
    blob = b"".join(len(text).to_bytes(4, "little") + text for text in encoded)
    return _described(wanted.name, "BYTES", shape, len(blob)), blob


def _described(name: str, datatype: str, shape: tuple[int, ...], size: int | None = None) -> dict[str, Any]:
    described: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(shape)}
    return described if size is None else described | {"parameters": {"binary_data_size": size}}


def _classified(found: NDArray[np.float32], classes: int, class_names: Sequence[str]) -> list[list[str]]:
    """Return of each image the most probable classes as Triton writes them: value:index:name."""
    order = np.argsort(-found, axis=1, kind="stable")[:, :classes]
    return [[f"{row[k]:f}:{k}:{class_names[k]}" for k in best] for row, best in zip(found, order, strict=True)]


def _of(shape: Sequence[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _short(value: object) -> str:
    return reprlib.repr(value)
