"""Writes the zip64 archives of torch.save, record by record.

Physical layout of an item:

    local header, name, extra (zip64 field, "FB" padding), data, descriptor
    ... one of these per record ...
    central directory, zip64 end record, its locator, end record

Every offset in it counts from the start of the item. A Blob is the bytes of
an item; a Zeros in it is a run of zeros that becomes a hole of the file, so
that an item of more than 4 GiB costs nothing.
"""

import struct
import zlib
from dataclasses import dataclass

BIG = 0xFFFFFFFF
LOCAL = struct.Struct("<IHHHHHIIIHH")
CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
END64 = struct.Struct("<IQHHIIQQQQ")
LOCATOR = struct.Struct("<IIQI")
END = struct.Struct("<IHHHHIIH")


@dataclass(frozen=True)
class Zeros:
    size: int

    def __len__(self):
        return self.size


class Blob:
    """Bytes and holes in order, with marks: name -> offset of a place."""

    def __init__(self, *parts):
        self.parts = []
        self.marks = {}
        self.size = 0
        for part in parts:
            self.add(part)

    def add(self, part):
        if isinstance(part, Blob):
            for each in part.parts:
                self.add(each)
            return
        if len(part):
            self.parts.append(part)
            self.size += len(part)

    def mark(self, name):
        self.marks[name] = self.size

    def __bytes__(self):
        return b"".join(bytes(p.size) if isinstance(p, Zeros) else bytes(p)
                        for p in self.parts)

    def write(self, file):
        for part in self.parts:
            if isinstance(part, Zeros):
                file.seek(part.size, 1)
            else:
                file.write(part)
        file.truncate()


@dataclass
class Record:
    name: str
    data: object            # bytes, Zeros or Blob
    method: int = 0

    def size(self):
        data = self.data
        return data.size if isinstance(data, Blob) else len(data)

    def crc(self):
        """zlib's CRC-32; 0 (not recorded) for data with holes."""
        data = self.data
        if isinstance(data, Zeros) or (
                isinstance(data, Blob)
                and any(isinstance(p, Zeros) for p in data.parts)):
            return 0
        return zlib.crc32(bytes(data))


def release(era):
    """"2.14" -> (2, 14)"""
    return tuple(int(part) for part in era.split("."))


def records(pickle, storages, era="2.14", byteorder="little", align=64,
            serialization_id="0" * 40):
    """The records of an item as that release of torch orders them.

    storages: key -> bytes. byteorder None leaves that record out.
    """
    torch = release(era)
    out = [Record("data.pkl", pickle)]
    if torch >= (2, 7):
        out.append(Record(".format_version", b"1"))
        out.append(Record(".storage_alignment", str(align).encode()))
    if torch >= (2, 1) and byteorder is not None:
        out.append(Record("byteorder", byteorder.encode()))
    out += [Record(f"data/{key}", data) for key, data in storages.items()]
    out.append(Record("version", b"3\n"))
    if torch >= (2, 1) and serialization_id is not None:
        out.append(Record(".data/serialization_id",
                          serialization_id.encode()))
    return out


def archive(entries, *, prefix="archive", align=64, crc=True, comment=b"",
            zip64_end=True):
    """The archive of a list of records."""
    blob = Blob()
    directory = []
    for entry in entries:
        header = blob.size
        directory.append((entry, header))
        add_local(blob, entry, prefix, align, crc)
    start = blob.size
    blob.mark("cd")
    for entry, header in directory:
        blob.mark(f"cd:{entry.name}")
        blob.add(central(entry, prefix, header, crc))
    size = blob.size - start
    add_end(blob, len(directory), size, start, comment, zip64_end)
    return blob


def add_local(blob, entry, prefix, align, crc):
    name = f"{prefix}/{entry.name}".encode()
    size, header = entry.size(), blob.size
    extra = b""
    if size >= BIG:
        extra += struct.pack("<HHQQ", 1, 16, size, size)
    if header >= BIG:
        extra += struct.pack("<HHQ", 1, 8, header)
    start = header + LOCAL.size + len(name) + len(extra) + 4
    pad = -start % align
    extra += struct.pack("<HH", 0x4246, pad) + b"Z" * pad
    flags = 0x0808 if size else 0x0800
    blob.mark(f"local:{entry.name}")
    blob.add(LOCAL.pack(0x04034B50, 0, flags, entry.method, 0, 0, 0, 0, 0,
                        len(name), len(extra)) + name + extra)
    blob.mark(f"data:{entry.name}")
    blob.add(entry.data)
    blob.mark(f"descriptor:{entry.name}")
    if not size:
        return
    wide = size >= BIG or header >= BIG
    blob.add(struct.pack("<IIQQ" if wide else "<IIII", 0x08074B50,
                         entry.crc() if crc else 0, size, size))


def central(entry, prefix, header, crc):
    name = f"{prefix}/{entry.name}".encode()
    size = entry.size()
    extra = struct.pack("<QQ", size, size) if size >= BIG else b""
    if header >= BIG:
        extra += struct.pack("<Q", header)
    if extra:
        extra = struct.pack("<HH", 1, len(extra)) + extra
    return CENTRAL.pack(0x02014B50, 0, 0, 0x0808 if size else 0x0800,
                        entry.method, 0, 0, entry.crc() if crc else 0,
                        min(size, BIG), min(size, BIG), len(name), len(extra),
                        0, 0, 0, 0, min(header, BIG)) + name + extra


def add_end(blob, count, size, start, comment, zip64_end):
    if zip64_end:
        blob.mark("end64")
        blob.add(END64.pack(0x06064B50, 44, 0x031E, 45, 0, 0, count, count,
                            size, start))
        blob.mark("locator")
        blob.add(LOCATOR.pack(0x07064B50, 0, start + size, 1))
    blob.mark("end")
    blob.add(END.pack(0x06054B50, 0, 0, min(count, 0xFFFF),
                      min(count, 0xFFFF), min(size, BIG), min(start, BIG),
                      len(comment)) + comment)
