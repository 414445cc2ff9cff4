"""A codec of keys that are a big-endian number of 32 bits, as a decimal number."""

import ktables


class Id(ktables.KeyCodec):
    def decode_key(self, raw):
        if len(raw) != 4:
            raise ktables.Malformed(f"expected 4 bytes, found {len(raw)}")
        return str(int.from_bytes(raw, "big"))

    def encode_key(self, key):
        # Each key has one text only: no leading zeros.
        is_number = key.isascii() and key.isdigit() and len(key) <= 10
        if not is_number or str(int(key)) != key or int(key) >= 2**32:
            raise ktables.Invalid("expected a whole number below 2^32")
        return int(key).to_bytes(4, "big")


ktables.export(Id)
