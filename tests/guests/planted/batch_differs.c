/* The form with many records per call forgets the sign. */
#include "ktables.h"

static ktables_status decode_as(ktables_bytes raw, bool has_sign, ktables_output *out) {
    if (raw.len != 1)
        return ktables_error(out, KTABLES_MALFORMED, "expected one byte, found %zu", raw.len);
    ktables_putf(out, "%d", has_sign ? (int8_t)raw.data[0] : raw.data[0]);
    return KTABLES_OK;
}

static ktables_status decode(ktables_bytes raw, ktables_headers headers, ktables_output *out) {
    (void)headers;
    return decode_as(raw, true, out);
}

static ktables_status decode_in_batch(ktables_bytes raw, ktables_headers headers, ktables_output *out) {
    (void)headers;
    return decode_as(raw, false, out);
}

/* What KTABLES_EXPORT_VALUE_CODEC does, with another function for batches. */
KTABLES_EXPORT_("value-codec@0.1.0#decode", decode,
                (const uint8_t *raw, size_t len, const ktables_header *headers, size_t count),
                ktables_decode_value_(decode, raw, len, headers, count))
KTABLES_EXPORT_("value-codec@0.1.0#encode", encode, (const uint8_t *value, size_t len),
                ktables_convert_(ktables_cannot_encode, value, len))
KTABLES_EXPORT_("value-codec-batch@0.1.0#decode", decode_batch,
                (const uint8_t *bytes, size_t len, const uint32_t *ends, size_t count, const ktables_headers *headers,
                 size_t lists),
                ktables_decode_values_(decode_in_batch, (ktables_packed_){bytes, len, ends, count}, headers, lists))
KTABLES_EXPORT_("value-codec-batch@0.1.0#encode", encode_batch,
                (const uint8_t *bytes, size_t len, const uint32_t *ends, size_t count),
                ktables_encode_values_(ktables_cannot_encode, (ktables_packed_){bytes, len, ends, count}))
