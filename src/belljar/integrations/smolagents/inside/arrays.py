# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportMissingModuleSource=false
"""numpy arrays, torch tensors and PIL images of the codec: raw buffers and PNG, whose headers are checked first."""

from __future__ import annotations

import io
import math
from typing import Any

from .codec import CodecError, Decoder, Encoder, reader, writer

__all__ = ("npy", "npy_of", "write_numpy", "write_pil", "write_torch")

_MAX_PIXELS = 100_000_000
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_RAW_MODES = ("I", "F", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa", "La", "I;16B")
_MODE_BYTES = {"F": 4, "I;16B": 2, "YCbCr": 3, "LAB": 3, "HSV": 3, "La": 2}


@writer("numpy")
def write_numpy(encoder: Encoder, value: Any) -> Any:
    import numpy

    if isinstance(value, numpy.generic) and value.dtype.kind not in "mMV":
        return encoder.tree(value.item()) if not isinstance(value.item(), numpy.generic) else None
    if not isinstance(value, (numpy.ndarray, numpy.generic)):
        return None
    array = numpy.asarray(value)
    if "numpy" not in encoder.peer:
        return encoder.tree(array.tolist())
    if array.dtype.hasobject:
        items = [encoder.tree(item) for item in array.ravel().tolist()]
        return {"$t": "ndarray", "s": list(array.shape), "v": items}
    return {"$t": "npy", "v": npy(encoder, array), "c": isinstance(value, numpy.generic)}


def npy(encoder: Encoder, array: Any) -> Any:
    """The array as bytes in numpy's own format, which holds no pickle."""
    import numpy

    buffer = io.BytesIO()
    numpy.save(buffer, array, allow_pickle=False)
    return encoder.blob(buffer.getvalue())


def npy_of(decoder: Decoder, node: Any) -> Any:
    """An array that is writable, and as large as its bytes: a header that promises more is refused."""
    import numpy

    data = decoder.blob(node)
    stream = io.BytesIO(data)
    version = numpy.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise CodecError("an array in an unknown format")
    read = numpy.lib.format.read_array_header_1_0 if version == (1, 0) else numpy.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject or dtype.itemsize == 0:
        raise CodecError("an array of objects")
    if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise CodecError("an array whose header does not fit its data")
    flat = numpy.frombuffer(data, dtype=dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C").copy(order="K")


@reader("npy")
def _read_npy(decoder: Decoder, node: dict[str, Any]) -> Any:
    array = npy_of(decoder, node.get("v"))
    return array[()] if node.get("c") is True else array


@reader("ndarray")
def _read_objects(decoder: Decoder, node: dict[str, Any]) -> Any:
    import numpy

    items = decoder.items(node.get("v"))
    shape = _shape(node.get("s"), len(items))
    array = numpy.empty(len(items), dtype=object)
    for number, item in enumerate(items):
        array[number] = item
    return array.reshape(shape)


@writer("torch")
def write_torch(encoder: Encoder, value: Any) -> Any:
    import torch

    if not isinstance(value, torch.Tensor) or value.is_sparse or value.is_quantized:
        return None
    tensor = value.detach().cpu().contiguous()
    if "torch" not in encoder.peer:
        return encoder.tree(tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy())
    name = str(tensor.dtype).rpartition(".")[2]
    raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return {"$t": "tensor", "d": name, "s": list(tensor.shape), "v": encoder.blob(raw)}


@reader("tensor")
def _read_tensor(decoder: Decoder, node: dict[str, Any]) -> Any:
    import torch

    dtype = getattr(torch, decoder.text(node.get("d")), None)
    if not isinstance(dtype, torch.dtype):
        raise CodecError("no kind of tensor")
    data = bytearray(decoder.blob(node.get("v")))
    size = torch.empty((), dtype=dtype).element_size()
    shape = _shape(node.get("s"), len(data) // size)
    if len(data) % size:
        raise CodecError("a tensor whose shape does not fit its data")
    return torch.frombuffer(data, dtype=dtype).reshape(shape) if data else torch.empty(shape, dtype=dtype)


@writer("PIL")
def write_pil(encoder: Encoder, value: Any) -> Any:
    from PIL import Image

    if not isinstance(value, Image.Image):
        return None
    if value.mode in _RAW_MODES and "PIL" in encoder.peer:
        return {"$t": "pixels", "m": value.mode, "s": list(value.size), "v": encoder.blob(value.tobytes())}
    buffer = io.BytesIO()
    shown = value if value.mode in _PNG_MODES else value.convert("RGBA")
    shown.save(buffer, format="PNG", compress_level=3)
    if "PIL" not in encoder.peer:
        return {"$t": "bytes", "v": encoder.blob(buffer.getvalue())}
    return {"$t": "png", "v": encoder.blob(buffer.getvalue())}


@reader("png")
def _read_png(decoder: Decoder, node: dict[str, Any]) -> Any:
    from PIL import Image

    image = Image.open(io.BytesIO(decoder.blob(node.get("v"))), formats=["PNG"])
    if image.width * image.height > _MAX_PIXELS:
        raise CodecError(f"an image of more than {_MAX_PIXELS:,} pixels")
    image.load()
    return image


@reader("pixels")
def _read_pixels(decoder: Decoder, node: dict[str, Any]) -> Any:
    from PIL import Image

    mode = decoder.text(node.get("m"))
    data = decoder.blob(node.get("v"))
    if mode not in _RAW_MODES:
        raise CodecError("no kind of image")
    shape = _shape(node.get("s"), None)
    if len(shape) != 2 or shape[0] * shape[1] * _MODE_BYTES.get(mode, 4) != len(data):
        raise CodecError("an image whose size does not fit its data")
    return Image.frombytes(mode, (shape[0], shape[1]), data)


def _shape(node: Any, count: int | None) -> list[int]:
    if not isinstance(node, list) or len(node) > 32 or not all(type(n) is int and 0 <= n < 1 << 40 for n in node):
        raise CodecError("no shape")
    if count is not None and math.prod(node) != count:
        raise CodecError("a shape that does not fit its data")
    return node
