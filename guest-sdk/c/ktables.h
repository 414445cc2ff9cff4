/*
 * The SDK for ktables codecs in C: this header and ktables.c, which you compile with your source.
 *
 * Write the functions of a codec, and export them once, outside of functions:
 *
 *     static ktables_status decode(ktables_bytes raw, ktables_headers headers, ktables_output *out) {
 *         if (raw.len != 1)
 *             return ktables_error(out, KTABLES_MALFORMED, "expected one byte, found %zu", raw.len);
 *         ktables_putf(out, "%u", raw.data[0]);
 *         return KTABLES_OK;
 *     }
 *
 *     KTABLES_EXPORT_VALUE_CODEC(decode, ktables_cannot_encode)
 *
 * Build it as a library for WASI (clang with wasi-libc, or `zig cc`), and make a component of it:
 *
 *     zig cc -target wasm32-wasi -mexec-model=reactor -O2 -s -Wl,-z,stack-size=262144 -o codec.core.wasm codec.c ktables.c
 *     ktables codec build codec.core.wasm -o codec.wasm
 *
 * A codec must be pure: its answer depends on the input and the configuration only, not on earlier calls. The host runs
 * several instances at once, and may replace any of them at any time.
 *
 * Arguments, and what ktables_alloc returns, are valid until the host has read the answer. Then that memory is used again:
 * what a codec keeps, for example of its configuration, it must copy to static variables or to memory of malloc.
 */
#ifndef KTABLES_H
#define KTABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes, or text in UTF-8. There is no zero at the end: print text as "%.*s", (int)text.len, (const char *)text.data. */
typedef struct {
    const uint8_t *data;
    size_t len;
} ktables_bytes;

/* A header of a record. Null and empty values differ. */
typedef struct {
    ktables_bytes name;
    bool has_value;
    ktables_bytes value;
} ktables_header;

/* The headers of a record, in its order. Several may have the same name. */
typedef struct {
    const ktables_header *items;
    size_t count;
} ktables_headers;

/*
 * The result of a function of a codec. An error rejects one record, which the host counts by the kind of the error.
 */
typedef enum {
    KTABLES_OK = -1,
    /* The bytes are not in the format of the codec. */
    KTABLES_MALFORMED = 0,
    /* The format is correct, but the content breaks a rule of the schema. */
    KTABLES_INVALID = 1,
    /* The codec does not do this: it only decodes, for example, or the bytes have a later version of the format. */
    KTABLES_UNSUPPORTED = 2,
    /* Any other error. */
    KTABLES_OTHER = 3,
} ktables_status;

/* Where a function of a codec writes its answer. */
typedef struct ktables_output ktables_output;

/* Appends bytes to the answer. */
void ktables_put(ktables_output *out, ktables_bytes bytes);

/* Appends a byte to the answer. */
void ktables_put_byte(ktables_output *out, uint8_t byte);

/* Appends an unsigned number of 1 to 8 bytes, the most significant one first. */
void ktables_put_big_endian(ktables_output *out, uint64_t number, unsigned bytes);

/* Appends text, formatted as by printf. */
__attribute__((format(printf, 2, 3))) void ktables_putf(ktables_output *out, const char *format, ...);

/* Appends text as a JSON string, with quotes. It must be UTF-8 (see ktables_is_utf8). */
void ktables_put_json_string(ktables_output *out, ktables_bytes text);

/* Adds a header to the record, in a function that encodes a value. The value may be NULL. */
void ktables_put_header(ktables_output *out, ktables_bytes name, const ktables_bytes *value);

/*
 * Replaces the answer by an error, and returns its kind. Users see the text: say what was expected, what was found, and
 * where. Bytes that are not UTF-8 become question marks.
 */
__attribute__((format(printf, 3, 4))) ktables_status
ktables_error(ktables_output *out, ktables_status kind, const char *format, ...);

/* Returns memory for this many bytes, not initialized. */
void *ktables_alloc(size_t len);

/* Returns text, formatted as by printf. */
__attribute__((format(printf, 1, 2))) ktables_bytes ktables_format(const char *format, ...);

/* Returns the bytes of a C string. */
ktables_bytes ktables_text(const char *text);

/* Returns an unsigned number of 1 to 8 bytes, the most significant one first. */
uint64_t ktables_big_endian(const uint8_t *data, unsigned bytes);

bool ktables_is_utf8(ktables_bytes bytes);
bool ktables_equal(ktables_bytes a, ktables_bytes b);

typedef enum {
    KTABLES_LOG_TRACE,
    KTABLES_LOG_DEBUG,
    KTABLES_LOG_INFO,
    KTABLES_LOG_WARN,
    KTABLES_LOG_ERROR,
} ktables_level;

/* Writes a message to the log of the host: its first 1023 bytes. Bytes that are not UTF-8 become question marks. */
__attribute__((format(printf, 2, 3))) void ktables_log(ktables_level level, const char *format, ...);

/* Ends the instance. The record is rejected, and its reason has the text, as in a log. For errors of the codec itself. */
__attribute__((noreturn, format(printf, 1, 2))) void ktables_panic(const char *format, ...);

/*
 * A reader of JSON text, for functions that encode and for the configuration. Read the values in the order of the text. After the first error,
 * all functions return false; ktables_json_error returns it.
 *
 *     ktables_json json = ktables_json_read(value);
 *     ktables_bytes name;
 *     ktables_json_object(&json);
 *     while (ktables_json_member(&json, &name)) {
 *         if (ktables_equal(name, ktables_text("port")))
 *             ktables_json_uint(&json, UINT16_MAX, &port);
 *         else
 *             ktables_json_skip(&json);
 *     }
 *     if (!ktables_json_end(&json))
 *         return ktables_json_error(&json, out);
 */
typedef struct {
    const uint8_t *start, *at, *end;
    bool is_first, is_skipping;
    const char *error;
} ktables_json;

ktables_json ktables_json_read(ktables_bytes text);

/* Begins an object. Then ktables_json_member returns true, and the name, for each of its members. */
bool ktables_json_object(ktables_json *json);
bool ktables_json_member(ktables_json *json, ktables_bytes *name);

/* Begins an array. Then ktables_json_item returns true for each of its items. */
bool ktables_json_array(ktables_json *json);
bool ktables_json_item(ktables_json *json);

/* Reads a string, and replaces its escapes. */
bool ktables_json_string(ktables_json *json, ktables_bytes *text);
bool ktables_json_bool(ktables_json *json, bool *value);

/* Reads a whole number from 0 to max. */
bool ktables_json_uint(ktables_json *json, uint64_t max, uint64_t *number);

/* Reads any number, as it is written: negative ones and fractions, for example. */
bool ktables_json_number(ktables_json *json, ktables_bytes *text);

/* Reads `null`, if it is next. If not, that is no error. */
bool ktables_json_null(ktables_json *json);

/* Skips a value of any type. */
bool ktables_json_skip(ktables_json *json);

/* Returns true if all calls succeeded and the text ends here. */
bool ktables_json_end(ktables_json *json);

/* Replaces the answer by the error of the reader, of the kind KTABLES_INVALID. */
ktables_status ktables_json_error(const ktables_json *json, ktables_output *out);

/* The functions of codecs. The answer of a function that decodes a value must be one valid JSON text. */
typedef ktables_status ktables_decode_value(ktables_bytes raw, ktables_headers headers, ktables_output *out);
typedef ktables_status ktables_convert(ktables_bytes from, ktables_output *out);
/* Returns false for a key that does not belong to the grouped table. The parts are not copied: they must be of the key,
 * constants or of ktables_alloc. */
typedef bool ktables_split(ktables_bytes key, ktables_bytes *group, ktables_bytes *member);
typedef ktables_status ktables_join(ktables_bytes group, ktables_bytes member, ktables_output *out);

/* Encodes values in a codec that only decodes: returns KTABLES_UNSUPPORTED. */
ktables_status ktables_cannot_encode(ktables_bytes value, ktables_output *out);

/* The description of a component. */
typedef struct {
    const char *name, *version;
    /* Whether the function that decodes values wants the headers of records. */
    bool wants_headers;
} ktables_info;

/* What an instance is used for. */
typedef enum { KTABLES_ROLE_VALUE, KTABLES_ROLE_KEY, KTABLES_ROLE_GROUP } ktables_role;

typedef struct {
    ktables_bytes topic;
    ktables_role role;
    /* The configuration that the user gives, as JSON text. */
    ktables_bytes config;
} ktables_context;

/* Configures an instance before its first record. After an error, the table does not start, and the user sees the text.
 * A codec without a configuration has a function that returns KTABLES_OK. */
typedef ktables_status ktables_configure(ktables_context context, ktables_output *out);

/*
 * Exports a codec of values, a codec of keys, a scheme that splits keys into group and member, or the description and
 * the configuration of the component. All export the form with many records per call, too.
 *
 * Encoding a decoded key must return the same bytes, and joining the parts of a key must return the key. The host
 * checks both. The description is a variable:
 *
 *     static const ktables_info info = {.name = "mine", .version = "1.0", .wants_headers = true};
 *     KTABLES_EXPORT_PLUGIN(info, configure)
 */
#define KTABLES_EXPORT_VALUE_CODEC(decode, encode)                                                                    \
    KTABLES_EXPORT_("value-codec@0.1.0#decode", value_decode,                                                         \
                    (const uint8_t *raw, size_t len, const ktables_header *headers, size_t count),                    \
                    ktables_decode_value_(decode, raw, len, headers, count))                                          \
    KTABLES_EXPORT_("value-codec@0.1.0#encode", value_encode, (const uint8_t *value, size_t len),                     \
                    ktables_convert_(encode, value, len))                                                             \
    KTABLES_EXPORT_("value-codec-batch@0.1.0#decode", value_decode_batch,                                             \
                    (const uint8_t *bytes, size_t len, const uint32_t *ends, size_t count,                            \
                    const ktables_headers *headers, size_t header_lists),                                             \
                    ktables_decode_values_(decode, (ktables_packed_){bytes, len, ends, count}, headers, header_lists))\
    KTABLES_EXPORT_("value-codec-batch@0.1.0#encode", value_encode_batch,                                             \
                    (const uint8_t *bytes, size_t len, const uint32_t *ends, size_t count),                           \
                    ktables_encode_values_(encode, (ktables_packed_){bytes, len, ends, count}))

#define KTABLES_EXPORT_KEY_CODEC(decode, encode)                                                                      \
    KTABLES_EXPORT_CONVERT_("key-codec", "decode", key_decode, decode)                                                \
    KTABLES_EXPORT_CONVERT_("key-codec", "encode", key_encode, encode)

#define KTABLES_EXPORT_GROUP_SCHEME(split, join)                                                                      \
    KTABLES_EXPORT_("group-scheme@0.1.0#split", group_split, (const uint8_t *key, size_t len),                        \
                    ktables_split_key_(split, key, len))                                                              \
    KTABLES_EXPORT_("group-scheme@0.1.0#join", group_join,                                                            \
                    (const uint8_t *group, size_t group_len, const uint8_t *member, size_t member_len),               \
                    ktables_join_key_(join, group, group_len, member, member_len))                                    \
    KTABLES_EXPORT_("group-scheme-batch@0.1.0#split", group_split_batch,                                              \
                    (const uint8_t *bytes, size_t len, const uint32_t *ends, size_t count),                           \
                    ktables_split_keys_(split, (ktables_packed_){bytes, len, ends, count}))                           \
    KTABLES_EXPORT_("group-scheme-batch@0.1.0#join", group_join_batch,                                                \
                    (const uint8_t *groups, size_t groups_len, const uint32_t *group_ends, size_t group_count,        \
                    const uint8_t *members, size_t members_len, const uint32_t *member_ends, size_t member_count),    \
                    ktables_join_keys_(join, (ktables_packed_){groups, groups_len, group_ends, group_count},          \
                    (ktables_packed_){members, members_len, member_ends, member_count}))

#define KTABLES_EXPORT_PLUGIN(info, configure)                                                                        \
    KTABLES_EXPORT_("plugin@0.1.0#describe", plugin_describe, (void), ktables_describe_(info))                        \
    KTABLES_EXPORT_("plugin@0.1.0#configure", plugin_configure,                                                       \
                    (const uint8_t *topic, size_t topic_len, uint32_t role, const uint8_t *config, size_t config_len),\
                    ktables_configure_(configure, topic, topic_len, role, config, config_len))

/* What the macros above use. Not for other uses. */

#ifdef __wasm__
#define KTABLES_NAME_(name) __attribute__((export_name(name)))
#else
#define KTABLES_NAME_(name)
#endif

#define KTABLES_EXPORT_(name, function, parameters, call)                                                             \
    KTABLES_NAME_("ktables:codec/" name) const void *ktables_export_##function parameters;                            \
    KTABLES_NAME_("ktables:codec/" name) const void *ktables_export_##function parameters { return call; }            \
    KTABLES_NAME_("cabi_post_ktables:codec/" name) void ktables_post_##function(const void *answer);                  \
    KTABLES_NAME_("cabi_post_ktables:codec/" name) void ktables_post_##function(const void *answer) {                 \
        (void)answer;                                                                                                 \
        ktables_release_();                                                                                           \
    }

#define KTABLES_EXPORT_CONVERT_(interface, name, function, convert)                                                   \
    KTABLES_EXPORT_(interface "@0.1.0#" name, function, (const uint8_t *data, size_t len),                            \
                    ktables_convert_(convert, data, len))                                                             \
    KTABLES_EXPORT_(interface "-batch@0.1.0#" name, function##_batch,                                                 \
                    (const uint8_t *bytes, size_t len, const uint32_t *ends, size_t count),                           \
                    ktables_convert_all_(convert, (ktables_packed_){bytes, len, ends, count}))

typedef struct {
    const uint8_t *bytes;
    size_t len;
    const uint32_t *ends;
    size_t count;
} ktables_packed_;

const void *ktables_decode_value_(ktables_decode_value *decode, const uint8_t *raw, size_t len,
                                  const ktables_header *headers, size_t count);
const void *ktables_decode_values_(ktables_decode_value *decode, ktables_packed_ raw, const ktables_headers *headers,
                                   size_t count);
const void *ktables_encode_values_(ktables_convert *encode, ktables_packed_ values);
const void *ktables_convert_(ktables_convert *convert, const uint8_t *data, size_t len);
const void *ktables_convert_all_(ktables_convert *convert, ktables_packed_ items);
const void *ktables_split_key_(ktables_split *split, const uint8_t *key, size_t len);
const void *ktables_join_key_(ktables_join *join, const uint8_t *group, size_t group_len, const uint8_t *member,
                              size_t member_len);
const void *ktables_split_keys_(ktables_split *split, ktables_packed_ keys);
const void *ktables_join_keys_(ktables_join *join, ktables_packed_ groups, ktables_packed_ members);
const void *ktables_describe_(ktables_info info);
const void *ktables_configure_(ktables_configure *configure, const uint8_t *topic, size_t topic_len, uint32_t role,
                               const uint8_t *config, size_t config_len);
void ktables_release_(void);

#endif
