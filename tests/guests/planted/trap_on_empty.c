/* An empty value ends the instance. */
#include "ktables.h"

static ktables_status decode(ktables_bytes raw, ktables_headers headers, ktables_output *out) {
    (void)headers;
    if (raw.len == 0)
        ktables_panic("index 0 is out of range for 0 bytes");
    ktables_putf(out, "%u", raw.data[0]);
    return KTABLES_OK;
}

KTABLES_EXPORT_VALUE_CODEC(decode, ktables_cannot_encode)
