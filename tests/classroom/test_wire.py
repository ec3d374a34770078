"""The only channel between the grader and a student's code: values survive it, and nothing on it is trusted."""

import collections
import json
import socket
import struct
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from classroom import wire


def there_and_back(value):
    tree, body = wire.encode(value)
    return wire.decode(json.loads(json.dumps(tree)), body)


def receive_raw(data: bytes):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        return wire.receive(ours, time.monotonic() + 5)


def frame(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack(">IQ", len(text), len(body)) + text + body


@pytest.mark.parametrize("value", [None, True, 3, -(10**30), 0.1, "T²", [1, [2.5]], (1, "a"), {10: 0.5, "k": [None]}])
def test_plain_values_arrive_as_they_were(value):
    arrived = there_and_back(value)
    assert arrived == value
    assert type(arrived) is type(value)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_tensors_arrive_with_type_and_shape(dtype, shape):
    tensor = (10 * torch.rand(shape)).to(getattr(torch, dtype))
    arrived = there_and_back(tensor)
    assert arrived.dtype == tensor.dtype
    assert arrived.shape == tensor.shape
    assert torch.equal(arrived, tensor)


def test_a_transposed_view_and_a_leaf_with_gradient_arrive():
    array = np.arange(6.0).reshape(2, 3).T
    np.testing.assert_array_equal(there_and_back(array), array)
    leaf = torch.ones(2, requires_grad=True)
    assert torch.equal(there_and_back([leaf * 2])[0], torch.full((2,), 2.0))


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("make", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr, lambda t: t.to("meta")])
def test_a_tensor_that_is_not_dense_does_not_travel(make):
    with pytest.raises(wire.WireError, match="not dense"):
        wire.encode([make(torch.eye(3))])


@settings(max_examples=40, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False), st.lists))
def test_any_nesting_of_plain_values_arrives(value):
    try:
        wire.encode(value)
    except wire.WireError:
        return  # too deep
    assert there_and_back(value) == value


def test_objects_do_not_travel():
    for value in (object(), len, {1, 2}, np.array([object()]), np.datetime64("2020-01-01"), [np.array(["text"])]):
        with pytest.raises(wire.WireError):
            wire.encode(value)


def test_of_a_derived_class_travels_what_its_base_holds():
    class Liar(np.ndarray):
        def __eq__(self, other):
            return True

    class Number(float):
        def hex(self):
            return "0x1p+9"

    class Text(str):
        def __str__(self):
            return "another"

    class Whole(int):
        def __repr__(self):
            return "7"

    class Items(list):
        def __iter__(self):
            return iter([7])

    class Pairs(dict):
        def items(self):
            return [("k", 7)]

    pair = collections.namedtuple("pair", "x y")
    lies = [Number(1), Text("one"), Whole(1), Items([1]), Pairs(a=1), pair(1, 2.0), torch.Size([2])]
    arrived = there_and_back(lies)
    assert arrived == [1.0, "one", 1, [1], {"a": 1}, (1, 2.0), (2,)]
    assert [type(value) for value in arrived] == [float, str, int, list, dict, tuple, tuple]
    assert type(there_and_back(np.zeros(2).view(Liar))) is np.ndarray
    ordered = collections.OrderedDict(b=1, a=2)
    assert list(there_and_back(ordered).items()) == [("b", 1), ("a", 2)]
    assert there_and_back(collections.defaultdict(int, k=1)) == {"k": 1}


def test_scalars_and_keys_of_numpy_travel_as_numbers():
    value = {np.int64(10): np.float32(0.5), np.float64(0.5): np.bool_(True), np.str_("k"): 1 + 2j}
    arrived = there_and_back(value)
    assert arrived == {10: 0.5, 0.5: True, "k": 1 + 2j}
    assert [type(key) for key in arrived] == [int, float, str]


@pytest.mark.parametrize(
    "header",
    [
        b"\xff\xfe",
        b"[" * 100_000,
        [],
        {"tensor": ["float32", [2], 8]},
        {"dict": [["k", {"tensor": ["object", [1], 8]}]]},
        {"dict": [["k", {"tensor": ["float32", [-1], 4]}]]},
        {"dict": [["k", {"tensor": ["float32", [10**9, 10**9], 4]}]]},
        {"dict": [["k", {"tensor": ["float32", [1], 4]}]]},
        {"dict": [["k", {"tensor": "float32"}]]},
        {"dict": [["k", {"int": "1" * 5000}]]},
        {"dict": [[["not a key"], 1]]},
        {"dict": 3},
        {"pickle": "gASV"},
    ],
)
def test_malformed_frames_are_refused(header):
    with pytest.raises(wire.WireError):
        receive_raw(frame(header))


def test_a_frame_that_claims_to_be_huge_is_refused_before_it_is_read():
    with pytest.raises(wire.WireError, match="size limit"):
        receive_raw(struct.pack(">IQ", 10, 2**60))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200))
def test_junk_never_does_more_than_fail(junk):
    with pytest.raises((wire.WireError, EOFError)):
        receive_raw(junk)


def test_silence_ends_at_the_deadline():
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError):
        wire.receive(ours, time.monotonic() + 0.05)
