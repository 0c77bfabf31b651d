"""Stream extensions: what a writer makes of the bytes of an item.

A chain lists descriptors as storage_data does: the innermost first, that is
the one that the bytes go through first when they are written.
"""

import struct

import zstandard

ZSTD = "stream.zstd/1"
INC = "stream.inc/1"
ROT13 = "stream.rot13/1"


def zstd(data):
    """One frame that knows neither its size nor a checksum, as torch's."""
    coder = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return coder.compress(data) + coder.flush()


def zstd_frames(data, count=5):
    """Several, with checksums, empty and skippable ones in between."""
    coder = zstandard.ZstdCompressor(write_checksum=True)
    out, step = skippable(0), max(1, -(-len(data) // count))
    for begin in range(0, len(data), step):
        out += coder.compress(data[begin:begin + step]) + zstd(b"")
        out += skippable(begin % 77, begin % 16)
    return out


def skippable(size, kind=0):
    return struct.pack("<II", 0x184D2A50 + kind, size) + b"\x28" * size


def inc(data):
    """Each byte one more, as in the extension that torch's tests have."""
    return bytes((byte + 1) & 255 for byte in data)


def rot13(data):
    """Despite its name: the case of ASCII letters."""
    return bytes(byte ^ 0x20 if chr(byte).isascii() and chr(byte).isalpha()
                 else byte for byte in data)


CODERS = {ZSTD: zstd, INC: inc, ROT13: rot13}


def encode(data, chain, coders=CODERS):
    """The bytes that are stored of an item behind the chain."""
    for descriptor in chain:
        data = coders[descriptor](data)
    return data
