"""Protocol buffers, read without a schema: a message is fields, a number and a value each.

https://protobuf.dev/programming-guides/encoding. Nothing is executed, and nothing is believed: each
length is held against what is left of the file.
"""

from collections.abc import Iterator

Field = tuple[int, int | bytes]
KINDS = {0: "varint", 1: "8 bytes", 2: "bytes", 5: "4 bytes"}  # 3 and 4, groups, are long gone


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in base 128, the least first, and where it ends. ValueError beyond 64 bits."""
    value = 0
    for i in range(10):
        if at + i >= len(data):
            raise ValueError(f"it ends inside a number at byte {at}")
        byte = data[at + i]
        value |= (byte & 127) << 7 * i
        if byte < 128:
            if value >= 1 << 64:
                break
            return value, at + i + 1
    raise ValueError(f"the number at byte {at} has more than 64 bits")


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """(number, wire type, value) of each field. ValueError for bytes that are no message."""
    at = 0
    while at < len(data):
        start = at
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if number == 0 or number >= 1 << 29 or kind not in KINDS:
            raise ValueError(f"no field begins at byte {start} (number {number}, type {kind})")
        if kind == 0:
            value, at = varint(data, at)
            yield number, kind, value
            continue
        n = {1: 8, 5: 4}.get(kind, 0)
        if kind == 2:
            n, at = varint(data, at)
        if n > len(data) - at:
            raise ValueError(f"the field at byte {start} has {n} bytes, {len(data) - at} are left")
        yield number, kind, data[at : at + n]
        at += n


def message(data: bytes, schema: dict[int, int]) -> dict[int, list[int | bytes]]:
    """The values of each field that the schema (number -> wire type) names; others are skipped.

    ValueError for a field of another wire type.
    """
    found: dict[int, list[int | bytes]] = {number: [] for number in schema}
    for number, kind, value in fields(data):
        if number in schema:
            if kind != schema[number]:
                raise ValueError(f"field {number} is {KINDS[kind]}, not {KINDS[schema[number]]}")
            found[number].append(value)
    return found
