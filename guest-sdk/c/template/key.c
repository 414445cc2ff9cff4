/* A codec of keys that are a big-endian number of 32 bits, as a decimal number. */
#include "ktables.h"

static ktables_status decode(ktables_bytes raw, ktables_output *out) {
    if (raw.len != 4)
        return ktables_error(out, KTABLES_MALFORMED, "expected 4 bytes, found %zu", raw.len);
    ktables_putf(out, "%lu", (unsigned long)ktables_big_endian(raw.data, 4));
    return KTABLES_OK;
}

static ktables_status encode(ktables_bytes key, ktables_output *out) {
    /* Each key has one text only: no leading zeros, and no blanks. */
    uint64_t number = 0;
    bool is_number = key.len > 0 && (key.len == 1 || key.data[0] != '0');
    for (size_t at = 0; is_number && at < key.len; at++) {
        is_number = key.data[at] >= '0' && key.data[at] <= '9';
        number = number * 10 + (key.data[at] - '0');
        is_number &= number <= UINT32_MAX;
    }
    if (!is_number)
        return ktables_error(out, KTABLES_INVALID, "expected a whole number below 2^32");
    ktables_put_big_endian(out, number, 4);
    return KTABLES_OK;
}

KTABLES_EXPORT_KEY_CODEC(decode, encode)
