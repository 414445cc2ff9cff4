"""A codec of values that are a big-endian number of 32 bits, as a JSON number."""

import json

import ktables


class Counter(ktables.ValueCodec):
    def decode(self, raw, headers):
        if len(raw) != 4:
            raise ktables.Malformed(f"expected 4 bytes, found {len(raw)}")
        return str(int.from_bytes(raw, "big"))

    def encode(self, value):
        try:
            number = json.loads(value)
        except ValueError as error:
            # A number with thousands of digits, for example.
            raise ktables.Invalid(str(error)) from None
        # In Python, a bool is an int.
        if type(number) is not int or not 0 <= number < 2**32:
            raise ktables.Invalid("expected a whole number below 2^32")
        return ktables.Encoded(number.to_bytes(4, "big"))


ktables.export(Counter)
