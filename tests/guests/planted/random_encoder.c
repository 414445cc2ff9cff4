/* The second byte of an encoded value is random. */
#include "ktables.h"

#include <stdlib.h>

static ktables_status decode(ktables_bytes raw, ktables_headers headers, ktables_output *out) {
    (void)headers;
    if (raw.len != 2)
        return ktables_error(out, KTABLES_MALFORMED, "expected 2 bytes, found %zu", raw.len);
    ktables_putf(out, "%u", raw.data[0]);
    return KTABLES_OK;
}

static ktables_status encode(ktables_bytes value, ktables_output *out) {
    uint64_t number;
    ktables_json json = ktables_json_read(value);
    ktables_json_uint(&json, UINT8_MAX, &number);
    if (!ktables_json_end(&json))
        return ktables_json_error(&json, out);
    ktables_put_byte(out, (uint8_t)number);
    ktables_put_byte(out, (uint8_t)rand());
    return KTABLES_OK;
}

KTABLES_EXPORT_VALUE_CODEC(decode, encode)
