"""A codec for a compact binary record of a service instance, which becomes JSON, and for 16-byte keys, which become
UUID text. `examples/service-record` is the same codec in Rust; it describes the format.
"""

import json
import struct
import uuid

import ktables

VERSION, HEALTHY, DRAINING = 1, 1, 2

#: The types of the fields, and the greatest number that fits into them.
FIELDS = {
    "host": (str, None),
    "port": (int, 2**16 - 1),
    "weight": (int, 2**32 - 1),
    "healthy": (bool, None),
    "draining": (bool, None),
    "started": (int, 2**64 - 1),
    "tags": (list, None),
}


class ServiceRecord(ktables.ValueCodec, ktables.KeyCodec):
    def decode(self, raw, headers):
        fields = Fields(raw)
        version = fields.number("version", 1)
        if version != VERSION:
            raise ktables.Unsupported(f"unsupported version {version}, expected {VERSION}")
        flags = fields.number("flags", 1)
        if flags > HEALTHY | DRAINING:
            raise ktables.Invalid(f"unknown flags {flags:#04x}, expected only 1 and 2")
        port, weight, started = fields.number("port", 2), fields.number("weight", 4), fields.number("start", 8)
        service = {
            "host": fields.text("host"),
            "port": port,
            "weight": weight,
            "healthy": flags & HEALTHY != 0,
            "draining": flags & DRAINING != 0,
            "started": started,
            "tags": [fields.text("tag") for _ in range(fields.number("number of tags", 1))],
        }
        if fields.at < len(raw):
            raise ktables.Malformed(f"{len(raw) - fields.at} bytes after the last tag")
        return json.dumps(service, ensure_ascii=False, separators=(",", ":"))

    def encode(self, value):
        try:
            # No field may be negative, not even -0.
            service = json.loads(value, parse_int=lambda digits: -1 if digits[0] == "-" else int(digits))
        except ValueError as error:
            raise ktables.Invalid(str(error)) from None
        check_fields(service)
        flags = service["healthy"] * HEALTHY | service["draining"] * DRAINING
        fixed = struct.pack(">BBHIQ", VERSION, flags, service["port"], service["weight"], service["started"])
        tags = b"".join(encode_text("tag", tag) for tag in service["tags"])
        return ktables.Encoded(
            fixed + encode_text("host", service["host"]) + encode_length("tags", service["tags"]) + tags
        )

    def decode_key(self, raw):
        if len(raw) != 16:
            raise ktables.Malformed(f"expected a key of 16 bytes, found {len(raw)}")
        return str(uuid.UUID(bytes=raw))

    def encode_key(self, key):
        try:
            parsed = uuid.UUID(key)
        except ValueError:
            parsed = None
        if parsed is None or str(parsed) != key:
            raise ktables.Invalid(f"expected a UUID in lower case, with hyphens; found {key!r}")
        return parsed.bytes


class Fields:
    """Reads the fields of a record, one after the other."""

    def __init__(self, raw):
        self.raw, self.at = raw, 0

    def take(self, name, length):
        field = self.raw[self.at : self.at + length]
        if len(field) < length:
            raise ktables.Malformed(f"{name} at byte {self.at}: expected {length} bytes, found {len(field)}")
        self.at += length
        return field

    def number(self, name, length):
        return int.from_bytes(self.take(name, length), "big")

    def text(self, name):
        length = self.number(name, 1)
        at = self.at
        try:
            return self.take(name, length).decode()
        except UnicodeDecodeError as error:
            raise ktables.Malformed(f"{name} at byte {at}: not UTF-8: {error.reason}") from None


def check_fields(service):
    if not isinstance(service, dict) or service.keys() != FIELDS.keys():
        raise ktables.Invalid(f"expected an object with the fields {', '.join(FIELDS)}")
    for name, (kind, greatest) in FIELDS.items():
        # In Python, a bool is an int.
        if type(service[name]) is not kind:
            raise ktables.Invalid(f"{name}: expected a value of the type {kind.__name__}")
        if greatest is not None and not 0 <= service[name] <= greatest:
            raise ktables.Invalid(f"{name}: expected a number from 0 to {greatest}")
    if not all(isinstance(tag, str) for tag in service["tags"]):
        raise ktables.Invalid("tags: expected texts")


def encode_text(name, text):
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise ktables.Invalid(f"{name}: {error.reason}") from None
    return encode_length(name, raw) + raw


def encode_length(name, items):
    if len(items) > 255:
        raise ktables.Invalid(f"{name}: length {len(items)} exceeds the limit 255")
    return bytes([len(items)])


ktables.export(ServiceRecord)
