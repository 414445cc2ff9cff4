/* A value has the number of calls in it. */
#include "ktables.h"

static ktables_status decode(ktables_bytes raw, ktables_headers headers, ktables_output *out) {
    static unsigned calls;
    (void)headers;
    ktables_putf(out, "[%zu,%u]", raw.len, calls++);
    return KTABLES_OK;
}

KTABLES_EXPORT_VALUE_CODEC(decode, ktables_cannot_encode)
