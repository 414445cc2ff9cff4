/* A codec of values that are a big-endian number of 32 bits, as a JSON number. */
#include "ktables.h"

static ktables_status decode(ktables_bytes raw, ktables_headers headers, ktables_output *out) {
    (void)headers;
    if (raw.len != 4)
        return ktables_error(out, KTABLES_MALFORMED, "expected 4 bytes, found %zu", raw.len);
    ktables_putf(out, "%lu", (unsigned long)ktables_big_endian(raw.data, 4));
    return KTABLES_OK;
}

static ktables_status encode(ktables_bytes value, ktables_output *out) {
    uint64_t number;
    ktables_json json = ktables_json_read(value);
    ktables_json_uint(&json, UINT32_MAX, &number);
    if (!ktables_json_end(&json))
        return ktables_json_error(&json, out);
    ktables_put_big_endian(out, number, 4);
    return KTABLES_OK;
}

KTABLES_EXPORT_VALUE_CODEC(decode, encode)
