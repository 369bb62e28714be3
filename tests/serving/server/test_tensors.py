"""The Open Inference Protocol, values in and values out: what is understood, and what is refused, in which words."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from serving.server import tensors
from serving.server.refusal import Refusal
from serving.server.tensors import Output, Request, parse, respond

SHAPE = (2, 2, 1)
PIXELS = bytes(range(4))
INPUT = {"name": "images", "datatype": "UINT8", "shape": [1, *SHAPE], "data": list(PIXELS)}
BINARY = {key: value for key, value in INPUT.items() if key != "data"} | {"parameters": {"binary_data_size": 4}}
BOTH = ("logits", "probabilities")
FOUND = {
    "logits": np.array([[0.5, -2, 1], [1, 1, -0.25]], np.float32),
    "probabilities": np.array([[0.25, 0, 0.75], [0.5, 0.5, 0]], np.float32),
}
TOO_MANY_DIGITS = "Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits"
NAMES = ["ankle boot", "bag:1", "Größe"]


def text(one: object = INPUT, **others: object) -> bytes:
    return json.dumps({"inputs": [one], **others}).encode()


def asked(body: bytes, header_length: int | None = None) -> tuple[Request, bytes]:
    request, pixels = parse(body, header_length, SHAPE)
    return request, bytes(pixels)


def refusal(body: bytes, header_length: int | None = None) -> str:
    with pytest.raises(Refusal) as refused:
        parse(body, header_length, SHAPE)
    assert refused.value.status == 400
    message = str(refused.value)
    assert message.isprintable()
    assert len(message) < 200
    return message


@pytest.mark.parametrize("data", [[0, 1, 2, 3], [[0, 1], [2, 3]], [[[[0], [1]], [[2], [3]]]]], ids=["flat", "", "full"])
def test_pixels_in_json_may_be_nested_or_not(data: object) -> None:
    request, pixels = asked(text(INPUT | {"data": data}))
    assert pixels == PIXELS
    assert (request.count, request.id, request.timeout_s) == (1, None, math.inf)
    assert request.outputs == tuple(Output(name, False, 0) for name in BOTH)


def test_pixels_may_follow_the_json() -> None:
    head = text(BINARY)
    request, pixels = asked(head + PIXELS, len(head))
    assert (request.count, request.pixels, pixels) == (1, None, PIXELS)


def test_a_raw_request_is_nothing_but_pixels() -> None:
    request, pixels = asked(PIXELS * 3, 0)
    assert (request, pixels) == (Request(3, tuple(Output(name, True, 0) for name in BOTH)), PIXELS * 3)


@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=1, max_dims=1, max_side=5).map(lambda n: (*n, *SHAPE))))
def test_what_is_encoded_is_what_is_understood(images: NDArray[np.uint8]) -> None:
    one = INPUT | {"shape": list(images.shape)}
    described = BINARY | {"shape": list(images.shape), "parameters": {"binary_data_size": images.nbytes}}
    head = text(described)
    for request, pixels in (
        asked(text(one | {"data": images.tolist()})),
        asked(text(one | {"data": images.ravel().tolist()})),
        asked(head + images.tobytes(), len(head)),
        asked(images.tobytes(), 0),
    ):
        assert (request.count, pixels) == (len(images), images.tobytes())


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


def understood(body: bytes, header_length: int | None = None) -> tuple[Request, bytes] | None:
    """Return the request and its pixels; None: it was refused."""
    try:
        return asked(body, header_length)
    except Refusal as error:
        refused = error
    assert refused.status == 400
    assert str(refused).isprintable()
    return None


@given(st.sampled_from(["name", "datatype", "shape", "data", "parameters"]), anything)
def test_whatever_is_in_an_input_is_understood_or_refused(key: str, value: object) -> None:
    if found := understood(text(INPUT | {key: value})):
        assert (found[0].count, len(found[1])) == (1, 4)


@given(st.sampled_from(["id", "parameters", "outputs", "inputs"]), anything)
def test_whatever_is_in_a_request_is_understood_or_refused(key: str, value: object) -> None:
    if found := understood(json.dumps({"inputs": [INPUT], key: value}).encode()):
        respond(found[0], "m", "1", NAMES, {name: rows[:1] for name, rows in FOUND.items()})


@given(st.binary(max_size=64), st.none() | st.integers(0, 80))
def test_whatever_is_in_a_body_is_understood_or_refused(body: bytes, header_length: int | None) -> None:
    if found := understood(body, header_length):
        assert (header_length, len(found[1])) == (0, 4 * found[0].count)


@pytest.mark.parametrize(
    ("body", "header_length", "message"),
    [
        (b"{}", 3, "Inference-Header-Content-Length is 3, the body has 2 bytes"),
        (text() + b"123", len(text()), "3 bytes follow the JSON, whose input 'images' has its data inside"),
        (text(BINARY) + b"123", len(text(BINARY)), "3 bytes follow the JSON, binary_data_size of 'images' is 4"),
        (text(BINARY), None, "0 bytes follow the JSON, binary_data_size of 'images' is 4"),
        (b"", 0, "a raw request of 0 bytes; an image [2, 2, 1] has 4"),
        (b"12345", 0, "a raw request of 5 bytes; an image [2, 2, 1] has 4"),
        (b"", None, "failed to parse the request's JSON: Expecting value: line 1 column 1 (char 0)"),
        (b'{"a"', None, "failed to parse the request's JSON: Expecting ':' delimiter: line 1 column 5 (char 4)"),
        (b"[" * 100_000, None, "failed to parse the request's JSON: nested too deeply"),
        (b"[" + b"1" * 5000, None, f"failed to parse the request's JSON: {TOO_MANY_DIGITS}"),
        (
            b"\xff",
            None,
            "failed to parse the request's JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid",
        ),
        (b"[]", None, "the request's JSON is [], not an object"),
        (b"{}", None, "the request has no array of inputs"),
        (b'{"inputs": 1}', None, "the request has no array of inputs"),
        (b'{"inputs": [1]}', None, "1 inputs; one object is expected: the model takes 'images' alone"),
        (b'{"inputs": []}', None, "0 inputs; one object is expected: the model takes 'images' alone"),
        (b'{"inputs": [{}, {}]}', None, "2 inputs; one object is expected: the model takes 'images' alone"),
    ],
)
def test_a_body_that_is_no_request_is_refused(body: bytes, header_length: int | None, message: str) -> None:
    assert refusal(body, header_length).startswith(message)


@pytest.mark.parametrize(
    ("value", "said"),
    {
        "1e999": "inf",
        "-1": "-1",
        "256": "256",
        "0.5": "0.5",
        "1.0": "1.0",
        "true": "True",
        "null": "None",
        '"1"': "'1'",
        "{}": "{}",
        "NaN": "nan",
    }.items(),
)
@pytest.mark.parametrize("data", ["[0, 255, HERE, -1]", "[[0, 255], [HERE, 0]]"])
def test_a_value_that_is_no_pixel_is_named_with_its_position(value: str, said: str, data: str) -> None:
    body = json.dumps({"inputs": [INPUT | {"data": "HERE"}]}).replace('"HERE"', data.replace("HERE", value))
    expected = f"value 2 in data of input 'images' is {said}; whole numbers from 0 to 255 are expected"
    assert refusal(body.encode()) == expected


def test_a_number_of_more_digits_than_python_reads_is_refused() -> None:
    body = json.dumps({"inputs": [INPUT | {"data": "HERE"}]}).replace('"HERE"', "1" * 5000).encode()
    assert refusal(body).startswith("failed to parse the request's JSON: ")


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (INPUT | {"name": "image"}, "unexpected inference input 'image'; the model takes 'images'"),
        ({}, "unexpected inference input None; the model takes 'images'"),
        (INPUT | {"datatype": "FP32"}, "datatype of input 'images' is 'FP32'; UINT8 is expected"),
        *(
            (INPUT | {"shape": shape}, f"shape of input 'images' is {shape}; [-1, 2, 2, 1] is expected, with 1 or more")
            for shape in (
                [],
                [1],
                [0, 2, 2, 1],
                [-1, 2, 2, 1],
                [True, 2, 2, 1],
                [1, 2, 1, 2],
                [1.5, 2, 2, 1],
                [1, 2, 2, True],
                [1, 2.0, 2, 1],
                None,
                4,
            )
        ),
        (INPUT | {"data": None}, "input 'images' has no array of data"),
        (INPUT | {"data": "0123"}, "input 'images' has no array of data"),
        (INPUT | {"data": [0, 1, 2]}, "data of input 'images' has 3 values, its shape 4"),
        (INPUT | {"data": []}, "data of input 'images' has 0 values, its shape 4"),
        (
            INPUT | {"data": [[0, 1], [2]]},
            "data of input 'images' is no tensor: its arrays differ in length, or are too deep",
        ),
        (INPUT | {"parameters": []}, "parameters of input 'images' is [], not an object"),
        (BINARY | {"data": [1]}, "input 'images' has both data and binary_data_size"),
        *(
            (
                BINARY | {"parameters": {"binary_data_size": size}},
                f"binary_data_size of 'images' is {size}; its shape has 4",
            )
            for size in (-4, 3, 4.0, True)
        ),
    ],
)
def test_an_input_that_the_model_does_not_take_is_refused(one: object, message: str) -> None:
    assert refusal(text(one)) == message


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"outputs": 1}, "outputs is 1, not an array of objects"),
        ({"outputs": ["logits"]}, "outputs is ['logits'], not an array of objects"),
        (
            {"outputs": [{"name": "labels"}]},
            "unexpected inference output 'labels'; the model has logits, probabilities",
        ),
        ({"outputs": [{"name": ["logits"]}]}, "unexpected inference output ['logits']; the model has logits, probabi"),
        ({"outputs": [{"name": "logits"}] * 2}, "an output is asked for twice"),
        (
            {"outputs": [{"name": "logits", "parameters": {"binary_data": 1}}]},
            "binary_data of output 'logits' is 1, not true or false",
        ),
        *(
            (
                {"outputs": [{"name": "logits", "parameters": {"classification": classes}}]},
                f"classification of output 'logits' is {classes}; a number from 1 is expected",
            )
            for classes in (0, -1, 1.0, True, None)
        ),
        ({"outputs": [{"name": "logits", "parameters": 1}]}, "parameters of output 'logits' is 1, not an object"),
        ({"parameters": 1}, "parameters of the request is 1, not an object"),
        (
            {"parameters": {"binary_data_output": "yes"}},
            "binary_data_output of the request is 'yes', not true or false",
        ),
        ({"id": 7}, "id is 7, not a string"),
        *(
            (
                {"parameters": {"timeout": timeout}},
                f"timeout is {timeout}; microseconds, a whole number, are expected",
            )
            for timeout in (-1, 1.5, True, None)
        ),
    ],
)
def test_what_cannot_be_asked_for_is_refused(others: dict[str, Any], message: str) -> None:
    assert refusal(text(**others)).startswith(message)


def test_a_timeout_is_in_microseconds_and_0_is_none() -> None:
    assert asked(text(parameters={"timeout": 1_500_000}))[0].timeout_s == 1.5
    assert asked(text(parameters={"timeout": 0}))[0].timeout_s == math.inf


def test_what_one_request_asks_is_not_what_the_next_one_gets() -> None:
    """Requests are remembered by their JSON."""
    first, second = text(id="a"), text(id="b", outputs=[{"name": "logits"}])
    for _ in range(2):
        assert asked(first)[0].id == "a"
        assert asked(second)[0].outputs == (Output("logits", False, 0),)
    assert parse(text(INPUT | {"shape": [1, 4, 1, 1]}), None, (4, 1, 1))[0].count == 1
    assert "[-1, 2, 2, 1] is expected" in refusal(text(INPUT | {"shape": [1, 4, 1, 1]}))


def answered(*outputs: Output, name: str | None = None) -> tuple[dict[str, Any], bytes]:
    """Return the JSON of an answer, and what follows it."""
    headers, body = respond(Request(2, outputs, name), "classifier", "7", NAMES, FOUND)
    lengths = dict(headers)
    length = int(lengths.get(tensors.LENGTH, len(body)))
    assert lengths[b"content-type"] == (b"application/octet-stream" if length < len(body) else b"application/json")
    contents = json.loads(body[:length])
    assert contents.pop("model_name") == "classifier"
    assert contents.pop("model_version") == "7"
    return contents, body[length:]


def test_an_answer_in_json_has_the_numbers_inside() -> None:
    contents, rest = answered(*(Output(name, False, 0) for name in BOTH), name="ä\n")
    assert (contents.pop("id"), rest) == ("ä\n", b"")
    assert contents["outputs"] == [
        {"name": name, "datatype": "FP32", "shape": [2, 3], "data": FOUND[name].ravel().tolist()} for name in BOTH
    ]


@pytest.mark.parametrize("name", [None, "", '"quotes", and \\'])
def test_an_answer_in_binary_has_them_after_the_json_in_the_order_that_was_asked(name: str | None) -> None:
    for order in (BOTH, BOTH[::-1], BOTH[1:]):
        contents, rest = answered(*(Output(output, True, 0) for output in order), name=name)
        assert contents.pop("id", None) == name
        described = {"datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": 24}}
        assert contents == {"outputs": [{"name": output, **described} for output in order]}
        assert rest == b"".join(FOUND[output].tobytes() for output in order)


def test_one_output_may_be_in_json_and_the_other_binary() -> None:
    contents, rest = answered(Output("probabilities", True, 0), Output("logits", False, 0))
    assert [sorted(output) for output in contents["outputs"]] == [
        ["datatype", "name", "parameters", "shape"],
        ["data", "datatype", "name", "shape"],
    ]
    assert rest == FOUND["probabilities"].tobytes()


def test_a_classification_has_the_most_probable_classes_and_the_first_of_equal_ones() -> None:
    contents, _ = answered(Output("probabilities", False, 2))
    expected = ["0.750000:2:Größe", "0.250000:0:ankle boot", "0.500000:0:ankle boot", "0.500000:1:bag:1"]
    assert contents["outputs"] == [{"name": "probabilities", "datatype": "BYTES", "shape": [2, 2], "data": expected}]


def test_a_classification_in_binary_has_the_length_before_each_string_and_no_more_than_all_classes() -> None:
    contents, rest = answered(Output("logits", True, 99))
    (output,) = contents["outputs"]
    assert (output["shape"], output["parameters"]) == ([2, 3], {"binary_data_size": len(rest)})
    strings = []
    while rest:
        length = int.from_bytes(rest[:4], "little")
        strings.append(rest[4 : 4 + length].decode())
        rest = rest[4 + length :]
    assert strings[:3] == ["1.000000:2:Größe", "0.500000:0:ankle boot", "-2.000000:1:bag:1"]
    assert len(strings) == 6


def test_the_outputs_of_a_request_are_those_that_it_names_as_it_wants_them() -> None:
    wanted = [
        {"name": "probabilities", "parameters": {"classification": 2}},
        {"name": "logits", "parameters": {"binary_data": False}},
    ]
    request, _ = asked(text(outputs=wanted, parameters={"binary_data_output": True}))
    assert request.outputs == (Output("probabilities", True, 2), Output("logits", False, 0))
    assert asked(text(outputs=[]))[0].outputs == asked(text())[0].outputs
