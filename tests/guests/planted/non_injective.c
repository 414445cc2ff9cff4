/* Keys that differ in upper and lower case are split into the same parts. */
#include "ktables.h"

#include <ctype.h>
#include <string.h>

static bool split(ktables_bytes key, ktables_bytes *group, ktables_bytes *member) {
    const uint8_t *slash = key.len > 0 ? memchr(key.data, '/', key.len) : NULL;
    if (!slash)
        return false;
    *group = (ktables_bytes){key.data, (size_t)(slash - key.data)};
    uint8_t *lower = ktables_alloc(key.len);
    *member = (ktables_bytes){lower, key.len - group->len - 1};
    for (size_t at = 0; at < member->len; at++)
        lower[at] = (uint8_t)tolower(slash[at + 1]);
    return true;
}

static ktables_status join(ktables_bytes group, ktables_bytes member, ktables_output *out) {
    ktables_put(out, group);
    ktables_put_byte(out, '/');
    ktables_put(out, member);
    return KTABLES_OK;
}

KTABLES_EXPORT_GROUP_SCHEME(split, join)
