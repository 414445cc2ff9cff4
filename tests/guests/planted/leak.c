/* Each call keeps 1 KiB. */
#include "ktables.h"

#include <stdlib.h>

static ktables_status decode(ktables_bytes raw, ktables_headers headers, ktables_output *out) {
    static void *volatile kept;
    (void)headers;
    kept = malloc(1024);
    if (!kept)
        ktables_panic("out of memory");
    ktables_putf(out, "%zu", raw.len);
    return KTABLES_OK;
}

KTABLES_EXPORT_VALUE_CODEC(decode, ktables_cannot_encode)
