/* A scheme for keys that are a group and a member, separated by the first slash. */
#include "ktables.h"

#include <string.h>

static const uint8_t *slash(ktables_bytes text) {
    return text.len > 0 ? memchr(text.data, '/', text.len) : NULL;
}

static bool split(ktables_bytes key, ktables_bytes *group, ktables_bytes *member) {
    const uint8_t *at = slash(key);
    if (!at)
        return false;
    *group = (ktables_bytes){key.data, (size_t)(at - key.data)};
    *member = (ktables_bytes){at + 1, key.len - group->len - 1};
    return true;
}

static ktables_status join(ktables_bytes group, ktables_bytes member, ktables_output *out) {
    if (slash(group))
        return ktables_error(out, KTABLES_INVALID, "a group cannot have a slash in its name");
    ktables_put(out, group);
    ktables_put_byte(out, '/');
    ktables_put(out, member);
    return KTABLES_OK;
}

KTABLES_EXPORT_GROUP_SCHEME(split, join)
