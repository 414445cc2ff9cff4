/* Keys that differ in leading zeros have the same text. */
#include "ktables.h"

static ktables_status decode(ktables_bytes raw, ktables_output *out) {
    if (raw.len == 0 || raw.len > 8)
        return ktables_error(out, KTABLES_MALFORMED, "expected 1 to 8 bytes, found %zu", raw.len);
    ktables_putf(out, "%llu", (unsigned long long)ktables_big_endian(raw.data, (unsigned)raw.len));
    return KTABLES_OK;
}

static ktables_status encode(ktables_bytes key, ktables_output *out) {
    uint64_t number;
    ktables_json json = ktables_json_read(key);
    ktables_json_uint(&json, UINT64_MAX, &number);
    if (!ktables_json_end(&json))
        return ktables_json_error(&json, out);
    unsigned bytes = 1;
    while (bytes < 8 && number >> (8 * bytes))
        bytes++;
    ktables_put_big_endian(out, number, bytes);
    return KTABLES_OK;
}

KTABLES_EXPORT_KEY_CODEC(decode, encode)
