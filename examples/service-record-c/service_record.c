/*
 * A codec for a compact binary record of a service instance, which becomes JSON, and for 16-byte keys, which become UUID
 * text. examples/service-record is the same codec in Rust; it describes the format.
 */
#include "ktables.h"

#include <string.h>

enum { VERSION = 1, HEALTHY = 1, DRAINING = 2, UUID_LEN = 16 };

/* Reads the fields of a record, one after the other. After the first error, all are empty. */
typedef struct {
    ktables_bytes raw;
    size_t at;
    ktables_output *out;
    ktables_status status;
} fields;

static const uint8_t *take(fields *f, const char *name, size_t len) {
    static const uint8_t nothing[255];
    size_t rest = f->raw.len - f->at;
    if (f->status == KTABLES_OK && len > rest)
        f->status = ktables_error(f->out, KTABLES_MALFORMED, "%s at byte %zu: expected %zu bytes, found %zu", name,
                                  f->at, len, rest);
    if (f->status != KTABLES_OK)
        return nothing;
    f->at += len;
    return f->raw.data + f->at - len;
}

static uint64_t take_number(fields *f, const char *name, unsigned len) {
    return ktables_big_endian(take(f, name, len), len);
}

static ktables_bytes take_text(fields *f, const char *name) {
    size_t len = (size_t)take_number(f, name, 1), at = f->at;
    ktables_bytes text = {take(f, name, len), len};
    if (f->status == KTABLES_OK && !ktables_is_utf8(text))
        f->status = ktables_error(f->out, KTABLES_MALFORMED, "%s at byte %zu: not UTF-8", name, at);
    return text;
}

static const char *json_bool(bool value) {
    return value ? "true" : "false";
}

static ktables_status decode(ktables_bytes raw, ktables_headers headers, ktables_output *out) {
    (void)headers;
    fields f = {raw, 0, out, KTABLES_OK};
    unsigned version = (unsigned)take_number(&f, "version", 1);
    if (f.status == KTABLES_OK && version != VERSION)
        return ktables_error(out, KTABLES_UNSUPPORTED, "unsupported version %u, expected %u", version, VERSION);
    unsigned flags = (unsigned)take_number(&f, "flags", 1);
    if (f.status == KTABLES_OK && flags > (HEALTHY | DRAINING))
        return ktables_error(out, KTABLES_INVALID, "unknown flags %#04x, expected only 1 and 2", flags);
    unsigned port = (unsigned)take_number(&f, "port", 2);
    uint32_t weight = (uint32_t)take_number(&f, "weight", 4);
    uint64_t started = take_number(&f, "start", 8);
    ktables_put(out, ktables_text("{\"host\":"));
    ktables_put_json_string(out, take_text(&f, "host"));
    ktables_putf(out, ",\"port\":%u,\"weight\":%lu,\"healthy\":%s,\"draining\":%s,\"started\":%llu,\"tags\":[", port,
                 (unsigned long)weight, json_bool(flags & HEALTHY), json_bool(flags & DRAINING),
                 (unsigned long long)started);
    unsigned tags = (unsigned)take_number(&f, "number of tags", 1);
    for (unsigned tag = 0; tag < tags && f.status == KTABLES_OK; tag++) {
        if (tag > 0)
            ktables_put_byte(out, ',');
        ktables_put_json_string(out, take_text(&f, "tag"));
    }
    ktables_put(out, ktables_text("]}"));
    if (f.status == KTABLES_OK && f.at < raw.len)
        return ktables_error(out, KTABLES_MALFORMED, "%zu bytes after the last tag", raw.len - f.at);
    return f.status;
}

/* The content of a record, and which of its fields were found. If a field occurs twice, the last one counts. */
typedef struct {
    ktables_bytes host, tags[255];
    uint64_t port, weight, started;
    size_t tag_count;
    bool healthy, draining;
    unsigned found;
} service;

/* Reads a field. Returns false if it is unknown. */
static bool read_field(service *s, ktables_bytes name, ktables_json *json) {
    static const char *const names[] = {"host", "port", "weight", "healthy", "draining", "started", "tags"};
    unsigned field = 0;
    while (field < 7 && !ktables_equal(name, ktables_text(names[field])))
        field++;
    if (field == 7)
        return false;
    s->found |= 1u << field;
    switch (field) {
    case 0:
        return ktables_json_string(json, &s->host);
    case 1:
        return ktables_json_uint(json, UINT16_MAX, &s->port);
    case 2:
        return ktables_json_uint(json, UINT32_MAX, &s->weight);
    case 3:
        return ktables_json_bool(json, &s->healthy);
    case 4:
        return ktables_json_bool(json, &s->draining);
    case 5:
        return ktables_json_uint(json, UINT64_MAX, &s->started);
    default:
        s->tag_count = 0;
        ktables_json_array(json);
        while (ktables_json_item(json)) {
            if (s->tag_count < 255)
                ktables_json_string(json, &s->tags[s->tag_count]);
            else
                ktables_json_skip(json);
            s->tag_count++;
        }
        return true;
    }
}

static bool put_text(ktables_output *out, ktables_bytes text) {
    ktables_put_byte(out, (uint8_t)text.len);
    ktables_put(out, text);
    return text.len <= 255;
}

static ktables_status encode(ktables_bytes value, ktables_output *out) {
    service s = {0};
    ktables_json json = ktables_json_read(value);
    ktables_bytes name;
    ktables_json_object(&json);
    while (ktables_json_member(&json, &name)) {
        if (!read_field(&s, name, &json) && !json.error)
            return ktables_error(out, KTABLES_INVALID, "unknown field \"%.*s\"", (int)name.len,
                                 name.data);
    }
    if (!ktables_json_end(&json))
        return ktables_json_error(&json, out);
    if (s.found != (1u << 7) - 1)
        return ktables_error(out, KTABLES_INVALID,
                             "a field is missing: expected host, port, weight, healthy, draining, started and tags");
    ktables_put_byte(out, VERSION);
    ktables_put_byte(out, (s.healthy ? HEALTHY : 0) | (s.draining ? DRAINING : 0));
    ktables_put_big_endian(out, s.port, 2);
    ktables_put_big_endian(out, s.weight, 4);
    ktables_put_big_endian(out, s.started, 8);
    if (!put_text(out, s.host))
        return ktables_error(out, KTABLES_INVALID, "host: length %zu exceeds the limit 255", s.host.len);
    if (s.tag_count > 255)
        return ktables_error(out, KTABLES_INVALID, "tags: length %zu exceeds the limit 255", s.tag_count);
    ktables_put_byte(out, (uint8_t)s.tag_count);
    for (size_t tag = 0; tag < s.tag_count; tag++)
        if (!put_text(out, s.tags[tag]))
            return ktables_error(out, KTABLES_INVALID, "tag: length %zu exceeds the limit 255", s.tags[tag].len);
    return KTABLES_OK;
}

KTABLES_EXPORT_VALUE_CODEC(decode, encode)

static ktables_status decode_key(ktables_bytes raw, ktables_output *out) {
    static const char digits[] = "0123456789abcdef";
    if (raw.len != UUID_LEN)
        return ktables_error(out, KTABLES_MALFORMED, "expected a key of 16 bytes, found %zu", raw.len);
    for (size_t index = 0; index < UUID_LEN; index++) {
        if (index == 4 || index == 6 || index == 8 || index == 10)
            ktables_put_byte(out, '-');
        ktables_put_byte(out, (uint8_t)digits[raw.data[index] >> 4]);
        ktables_put_byte(out, (uint8_t)digits[raw.data[index] & 15]);
    }
    return KTABLES_OK;
}

static ktables_status encode_key(ktables_bytes key, ktables_output *out) {
    static const char form[] = "00000000-0000-0000-0000-000000000000", digits[] = "0123456789abcdef";
    unsigned half = 0, byte = 0;
    bool is_uuid = key.len == sizeof form - 1;
    for (size_t at = 0; is_uuid && at < key.len; at++) {
        const char *digit = key.data[at] ? strchr(digits, key.data[at]) : NULL;
        if (form[at] == '-') {
            is_uuid = key.data[at] == '-';
        } else if (!digit) {
            is_uuid = false;
        } else {
            byte = byte << 4 | (unsigned)(digit - digits);
            if (half ^= 1)
                continue;
            ktables_put_byte(out, (uint8_t)byte);
            byte = 0;
        }
    }
    if (!is_uuid)
        return ktables_error(out, KTABLES_INVALID, "expected a UUID in lower case, with hyphens; found \"%.*s\"",
                             (int)key.len, key.data);
    return KTABLES_OK;
}

KTABLES_EXPORT_KEY_CODEC(decode_key, encode_key)
