"""Files of images, as they should be and with headers that lie."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np


def encoded(suffix: str, *options: int, shape: tuple[int, ...] = (40, 60, 3)) -> bytes:
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    return cv2.imencode(suffix, image, list(options))[1].tobytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes = b"\0" * 100) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54) + header + bytes(500)


def flipped(data: bytes, *positions: int) -> bytes:
    changed = bytearray(data)
    for position in positions:
        changed[position] ^= 0xFF
    return bytes(changed)


BROKEN: dict[str, tuple[bytes, str]] = {  # by the name of the file: its content, and what is to be said of it
    "bomb60000.png": (png(60000, 60000), "claims 60000x60000 pixels"),
    "bomb30000.png": (png(30000, 30000), "claims 30000x30000 pixels"),
    "header0.png": (png(0, 0), "claims 0x0 pixels"),
    "idat_corrupt.png": (flipped(encoded(".png"), 5000, 6000), "checksum of its chunk IDAT"),
    "cut.png": (encoded(".png")[:3000], "truncated PNG"),
    "headless.png": (b"\x89PNG\r\n\x1a\n", "truncated PNG"),
    "bmp_huge.bmp": (bmp(60000, 60000), "claims 60000x60000 pixels"),
    "cut.bmp": (encoded(".bmp")[:3000], "image file is truncated"),
    "tiff_huge.tif": (
        b"II*\0" + struct.pack("<IHHHIIHHII", 8, 2, 256, 4, 1, 60000, 257, 4, 1, 60000) + bytes(99),
        "claims 60000x60000 pixels",
    ),
    "tiff_empty.tif": (b"II*\0\x08\0\0\0\0\0" + bytes(99), "TIFF without a size"),
    "pfm_huge.pfm": (b"PF\n60000 60000\n-1.0\n" + bytes(500), "claims 60000x60000 pixels"),
    "pfm_nan.pfm": (b"PF\nnan 60\n-1.0\n" + bytes(500), "not an image of a known format"),
    "webp_huge.webp": (b"RIFF\0\0\0\0WEBPVP8X\n" + bytes(7) + b"\xff\xff\x00" * 2 + bytes(99), "claims 65536x65536"),
    "page.jpg": (b"<!DOCTYPE html>", "not an image of a known format"),
    "empty.jpg": (b"", "empty"),
    "zeros.jpg": (bytes(5000), "not an image of a known format"),
    "gif.png": (b"GIF89a" + bytes(100), "not an image of a known format"),
    "line\nerror: fake\x1b[2J.png": (b"nothing", "not an image of a known format"),
}
