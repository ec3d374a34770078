"""Frames between the grader and the process that runs a student's code.

A frame is 12 bytes of lengths, a JSON header, and the raw bytes of the arrays that the header names. Nothing in a
frame can name a class or a function, so reading one cannot run code: that is why this is not pickle.
The reader checks every count and size before it uses it, because the other side is not trusted.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import sys
import time
from typing import Any

import numpy as np

MAX_HEADER = 4 * 2**20
MAX_BODY = 64 * 2**20
MAX_DEPTH = 16
MAX_ITEMS = 100_000
MAX_TEXT = 200_000

_LENGTHS = struct.Struct(">IQ")
_NUMPY_TYPES = frozenset(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128".split()
)
_TORCH_TYPES = (_NUMPY_TYPES - {"uint16", "uint32", "uint64"}) | {"bfloat16"}


class WireError(Exception):
    """The other side sent something that is not a frame, or a value that cannot travel."""


def encode(value: Any) -> tuple[Any, bytes]:
    """Turn a value into a JSON-able tree and the bytes of its arrays.

    Args:
        value: None, bool, int, float, complex, str, list, tuple, dict and classes derived from them, NumPy array or
            scalar, torch tensor, nested at will.

    Raises:
        WireError: the value, or something in it, is of another type, or it is too large.
    """
    chunks: list[bytes] = []
    tree = _pack(value, chunks, 0)
    size = sum(map(len, chunks))
    if size > MAX_BODY:
        raise WireError(f"arrays of {size >> 20} MB; the limit is {MAX_BODY >> 20} MB")
    return tree, b"".join(chunks)


def _pack(value: Any, chunks: list[bytes], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise WireError(f"a value nested more than {MAX_DEPTH} deep")
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    # Of a derived class travels what its base holds: what it overrides is not asked.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return {"int": int.__repr__(value)}
    if isinstance(value, float):
        return {"float": float.hex(value)}
    if isinstance(value, (list, tuple)):
        kind = list if isinstance(value, list) else tuple
        return {kind.__name__: [_pack(item, chunks, depth + 1) for item in kind.__iter__(value)]}
    if isinstance(value, dict):
        return {"dict": [[_pack(part, chunks, depth + 1) for part in pair] for pair in dict.items(value)]}
    if isinstance(value, complex):
        value = np.asarray(complex(value))
    if isinstance(value, np.ndarray):
        return _pack_array("ndarray", np.asarray(value), str(value.dtype), chunks)
    if "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor):
        return _pack_tensor(value, chunks)
    kind = type(value).__name__
    raise WireError(f"a value of type {kind}; expected a tensor, an array, a number, a string, or a list of them")


def _pack_array(name: str, array: np.ndarray, dtype: str, chunks: list[bytes]) -> dict:
    if dtype not in (_NUMPY_TYPES if name == "ndarray" else _TORCH_TYPES):
        raise WireError(f"an array of type {dtype}; expected numbers")
    data = np.ascontiguousarray(array).tobytes()
    chunks.append(data)
    return {name: [dtype, list(array.shape), len(data)]}


def _pack_tensor(tensor: Any, chunks: list[bytes]) -> dict:
    import torch

    try:
        plain = tensor.as_subclass(torch.Tensor).detach().cpu().contiguous()
        dtype = str(plain.dtype).removeprefix("torch.")
        # NumPy has no bfloat16: its bytes travel as 16-bit integers.
        array = (plain.view(torch.int16) if dtype == "bfloat16" else plain).numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:  # sparse, quantized, on no device
        raise WireError("a tensor that is not dense (sparse, perhaps); expected plain numbers") from error
    return _pack_array("tensor", array.reshape(tuple(plain.shape)), dtype, chunks)


def decode(tree: Any, body: bytes) -> Any:
    """Rebuild a value from `encode`'s output. Arrays are fresh copies of plain types.

    Raises:
        WireError: the tree is malformed, too large, or does not fit the bytes.
    """
    state = _Reader(body)
    value = state.unpack(tree, 0)
    if state.offset != len(body):
        raise WireError("bytes left over after the last array")
    return value


class _Reader:
    def __init__(self, body: bytes) -> None:
        self.body, self.offset, self.items = body, 0, 0

    def unpack(self, tree: Any, depth: int) -> Any:
        self.items += 1
        if depth > MAX_DEPTH or self.items > MAX_ITEMS:
            raise WireError("a value too deep or with too many items")
        if tree is None or isinstance(tree, bool):
            return tree
        if isinstance(tree, str):
            return tree[:MAX_TEXT]
        if not isinstance(tree, dict) or len(tree) != 1:
            raise WireError("an unknown kind of value")
        ((kind, content),) = tree.items()
        if kind == "int" and isinstance(content, str) and len(content) < 1000:
            return int(content)
        if kind == "float" and isinstance(content, str):
            return float.fromhex(content)
        if kind in ("list", "tuple") and isinstance(content, list):
            items = [self.unpack(item, depth + 1) for item in content]
            return items if kind == "list" else tuple(items)
        if kind == "dict" and isinstance(content, list):
            return self._mapping(content, depth)
        if kind in ("ndarray", "tensor"):
            return self._array(kind, content)
        raise WireError("an unknown kind of value")

    def _mapping(self, pairs: list, depth: int) -> dict:
        result = {}
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2:
                raise WireError("a malformed dict")
            key = self.unpack(pair[0], depth + 1)
            if not isinstance(key, (str, int, float)):
                raise WireError(f"a dict with a key of type {type(key).__name__}")
            result[key] = self.unpack(pair[1], depth + 1)
        return result

    def _array(self, kind: str, content: Any) -> Any:
        dtype, shape, size = content
        if dtype not in (_NUMPY_TYPES if kind == "ndarray" else _TORCH_TYPES):
            raise WireError("an array of an unknown type")
        if len(shape) > MAX_DEPTH or not all(type(n) is int and 0 <= n <= MAX_BODY for n in shape):
            raise WireError("an array of an impossible shape")
        storage = np.dtype("int16" if dtype == "bfloat16" else dtype)
        if type(size) is not int or size != math.prod(shape) * storage.itemsize:
            raise WireError("an array whose bytes do not fit its shape")
        if self.offset + size > len(self.body):
            raise WireError("an array that ends after the frame")
        data = self.body[self.offset : self.offset + size]
        self.offset += size
        array = np.frombuffer(data, storage).reshape(shape).copy()
        if kind == "ndarray":
            return array
        import torch

        tensor = torch.from_numpy(array)
        return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def send(connection: socket.socket, message: dict[str, Any], deadline: float | None = None) -> None:
    """Send one message, a dict of values that `encode` knows. The deadline is as in `receive`."""
    tree, body = encode(message)
    header = json.dumps(tree).encode()
    if len(header) > MAX_HEADER:
        raise WireError("a value with too many items")
    if deadline is not None:
        connection.settimeout(max(deadline - time.monotonic(), 1e-3))
    connection.sendall(_LENGTHS.pack(len(header), len(body)) + header + body)


def receive(connection: socket.socket, deadline: float | None = None) -> dict[str, Any]:
    """Read one message.

    Args:
        deadline: give up at this value of `time.monotonic()`; None waits for ever.

    Raises:
        EOFError: the other side is gone.
        TimeoutError: the deadline passed.
        WireError: what came is not a message.
    """
    header_size, body_size = _LENGTHS.unpack(_read(connection, _LENGTHS.size, deadline))
    if header_size > MAX_HEADER or body_size > MAX_BODY:
        raise WireError("a frame over the size limit")
    header = _read(connection, header_size, deadline)
    body = _read(connection, body_size, deadline)
    try:
        message = decode(json.loads(header), body)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise WireError(f"a malformed frame ({type(error).__name__})") from error
    if not isinstance(message, dict):
        raise WireError("a frame that is not a message")
    return message


def _read(connection: socket.socket, size: int, deadline: float | None) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
        part = connection.recv(min(size - len(parts), 2**20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
