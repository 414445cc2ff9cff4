/* The SDK for ktables codecs in C. ktables.h describes it. */
#include "ktables.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Memory of a call. It is freed as a whole when the host has read the answer; the largest block is kept. */

typedef struct block {
    struct block *next;
    size_t len;
} block;

enum { ALIGNMENT = 8, LEAST_BLOCK = 64 << 10 };

static block *blocks;
static uint8_t *next_free, *block_end;

void *ktables_alloc(size_t len) {
    if (len > SIZE_MAX / 2)
        ktables_panic("out of memory: %zu bytes were requested", len);
    len = (len + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (len > (size_t)(block_end - next_free)) {
        size_t least = blocks ? blocks->len * 2 : LEAST_BLOCK;
        size_t block_len = len > least ? len : least;
        block *added = malloc(sizeof(block) + block_len);
        if (!added && block_len > len)
            added = malloc(sizeof(block) + (block_len = len));
        if (!added)
            ktables_panic("out of memory: %zu bytes were requested", len);
        *added = (block){blocks, block_len};
        blocks = added;
        next_free = (uint8_t *)(added + 1);
        block_end = next_free + block_len;
    }
    void *memory = next_free;
    next_free += len;
    return memory;
}

void ktables_release_(void) {
    if (!blocks)
        return;
    /* Blocks get larger, so the newest one is the largest. */
    for (block *older = blocks->next; older;) {
        block *next = older->next;
        free(older);
        older = next;
    }
    blocks->next = NULL;
    next_free = (uint8_t *)(blocks + 1);
}

#ifdef __wasm__
__attribute__((export_name("cabi_realloc")))
#endif
void *cabi_realloc(void *old, size_t old_len, size_t alignment, size_t len);

/* Allocates memory for the arguments of a call. */
void *cabi_realloc(void *old, size_t old_len, size_t alignment, size_t len) {
    (void)alignment;
    void *memory = ktables_alloc(len);
    if (old_len > 0)
        memcpy(memory, old, old_len < len ? old_len : len);
    return memory;
}

/* The log of the host. */

enum { MESSAGE_LEN = 1024 };

#ifdef __wasm__
__attribute__((import_module("ktables:codec/logging@0.1.0"), import_name("log"))) void host_log(uint32_t level,
                                                                                               const char *message,
                                                                                               size_t len);
#else
static void host_log(uint32_t level, const char *message, size_t len) {
    (void)level;
    fprintf(stderr, "%.*s\n", (int)len, message);
}
#endif

/* Returns the length of the UTF-8 sequence at the start of these bytes, or 0 if there is none. */
static size_t utf8_len(const uint8_t *at, size_t len) {
    uint8_t first = at[0];
    size_t needed = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (needed == 0 || needed > len)
        return 0;
    for (size_t index = 1; index < needed; index++)
        if ((at[index] & 0xc0) != 0x80)
            return 0;
    /* Too long forms, surrogates, and numbers above the last code point. */
    bool is_wrong = (first == 0xe0 && at[1] < 0xa0) || (first == 0xed && at[1] > 0x9f) ||
                    (first == 0xf0 && at[1] < 0x90) || (first == 0xf4 && at[1] > 0x8f);
    return is_wrong ? 0 : needed;
}

/* Replaces what is not UTF-8. The host refuses other text. */
static void make_utf8(uint8_t *text, size_t len) {
    for (size_t at = 0; at < len;) {
        size_t sequence = utf8_len(text + at, len - at);
        if (sequence == 0)
            text[at] = '?';
        at += sequence ? sequence : 1;
    }
}

static void log_message(ktables_level level, const char *format, va_list arguments) {
    char message[MESSAGE_LEN];
    int written = vsnprintf(message, sizeof message, format, arguments);
    if (written <= 0)
        return;
    size_t len = (size_t)written < sizeof message ? (size_t)written : sizeof message - 1;
    make_utf8((uint8_t *)message, len);
    host_log(level, message, len);
}

void ktables_log(ktables_level level, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    log_message(level, format, arguments);
    va_end(arguments);
}

void ktables_panic(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    log_message(KTABLES_LOG_ERROR, format, arguments);
    va_end(arguments);
    abort();
}

/* Answers. */

/* The layouts that the host reads: those of the WIT package in the canonical ABI. A list is its address and length. */

typedef struct {
    const void *data;
    size_t len;
} list;

typedef struct {
    uint8_t kind;
    list text;
} codec_error;

typedef struct {
    uint32_t index;
    codec_error error;
} slot_error;

typedef struct {
    list bytes, ends;
} packed;

struct ktables_output {
    /* The answers for all items, one after the other. */
    uint8_t *bytes;
    size_t len, capacity;
    /* Where the present item begins. */
    size_t start;
    /* The headers of the present item. */
    ktables_header *headers;
    size_t header_count, header_capacity;
    /* The error of the present item. */
    ktables_bytes error;
};

/* The answers for a batch. */
typedef struct {
    ktables_output out;
    uint32_t *ends;
    slot_error *errors;
    size_t count, error_count, error_capacity;
} batch;

/* Returns memory for more items, with a copy of the present ones, if there is no capacity for one more. */
static void *reserve(void *items, size_t count, size_t *capacity, size_t item_len) {
    if (count < *capacity)
        return items;
    *capacity = *capacity ? *capacity * 2 : 8;
    void *larger = ktables_alloc(*capacity * item_len);
    if (count > 0)
        memcpy(larger, items, count * item_len);
    return larger;
}

/* Makes room for more bytes, and returns where they begin. */
static uint8_t *extend(ktables_output *out, size_t len) {
    if (len > out->capacity - out->len) {
        size_t needed = out->len + len, doubled = out->capacity * 2;
        out->capacity = needed > doubled ? needed : doubled;
        uint8_t *larger = ktables_alloc(out->capacity);
        if (out->len > 0)
            memcpy(larger, out->bytes, out->len);
        out->bytes = larger;
    }
    uint8_t *added = out->bytes + out->len;
    out->len += len;
    return added;
}

void ktables_put(ktables_output *out, ktables_bytes bytes) {
    if (bytes.len > 0)
        memcpy(extend(out, bytes.len), bytes.data, bytes.len);
}

void ktables_put_byte(ktables_output *out, uint8_t byte) {
    *extend(out, 1) = byte;
}

void ktables_put_big_endian(ktables_output *out, uint64_t number, unsigned bytes) {
    uint8_t *at = extend(out, bytes);
    while (bytes-- > 0)
        *at++ = (uint8_t)(number >> (8 * bytes));
}

static ktables_bytes format_text(const char *format, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    int len = vsnprintf(NULL, 0, format, arguments);
    if (len < 0)
        ktables_panic("cannot format \"%s\"", format);
    uint8_t *text = ktables_alloc((size_t)len + 1);
    vsnprintf((char *)text, (size_t)len + 1, format, again);
    va_end(again);
    return (ktables_bytes){text, (size_t)len};
}

ktables_bytes ktables_format(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    ktables_bytes text = format_text(format, arguments);
    va_end(arguments);
    return text;
}

void ktables_putf(ktables_output *out, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    ktables_put(out, format_text(format, arguments));
    va_end(arguments);
}

ktables_status ktables_error(ktables_output *out, ktables_status kind, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    out->error = format_text(format, arguments);
    va_end(arguments);
    make_utf8((uint8_t *)out->error.data, out->error.len);
    return kind;
}

static ktables_bytes copy(ktables_bytes bytes) {
    uint8_t *copied = ktables_alloc(bytes.len);
    if (bytes.len > 0)
        memcpy(copied, bytes.data, bytes.len);
    return (ktables_bytes){copied, bytes.len};
}

void ktables_put_header(ktables_output *out, ktables_bytes name, const ktables_bytes *value) {
    out->headers = reserve(out->headers, out->header_count, &out->header_capacity, sizeof(ktables_header));
    ktables_header header = {copy(name), value != NULL, value ? copy(*value) : (ktables_bytes){NULL, 0}};
    out->headers[out->header_count++] = header;
}

ktables_status ktables_cannot_encode(ktables_bytes value, ktables_output *out) {
    (void)value;
    return ktables_error(out, KTABLES_UNSUPPORTED, "this codec only decodes");
}

static batch new_batch(ktables_packed_ items) {
    batch answers = {0};
    answers.ends = ktables_alloc(items.count * sizeof(uint32_t));
    answers.out.capacity = items.len;
    answers.out.bytes = ktables_alloc(items.len);
    return answers;
}

static ktables_bytes item(ktables_packed_ items, size_t index) {
    size_t start = index > 0 ? items.ends[index - 1] : 0;
    return (ktables_bytes){items.bytes + start, items.ends[index] - start};
}

/* Ends the present item. */
static void push(batch *answers, ktables_status status) {
    ktables_output *out = &answers->out;
    if (status != KTABLES_OK) {
        answers->errors =
            reserve(answers->errors, answers->error_count, &answers->error_capacity, sizeof(slot_error));
        codec_error error = {(uint8_t)status, {out->error.data, out->error.len}};
        answers->errors[answers->error_count++] = (slot_error){(uint32_t)answers->count, error};
        out->len = out->start;
        out->header_count = 0;
    }
    out->error = (ktables_bytes){NULL, 0};
    answers->ends[answers->count++] = (uint32_t)out->len;
    out->start = out->len;
}

static packed packed_answers(const batch *answers) {
    return (packed){{answers->out.bytes, answers->out.len}, {answers->ends, answers->count}};
}

static list errors(const batch *answers) {
    return (list){answers->errors, answers->error_count};
}

/* The answer for one item: an error, or bytes, and headers if the item is an encoded value. */
typedef struct {
    uint8_t is_error;
    union {
        struct {
            list bytes, headers;
        } ok;
        codec_error error;
    } content;
} answer;

static const void *answer_of(const ktables_output *out, ktables_status status) {
    answer *made = ktables_alloc(sizeof(answer));
    made->is_error = status != KTABLES_OK;
    if (status == KTABLES_OK) {
        made->content.ok.bytes = (list){out->bytes, out->len};
        made->content.ok.headers = (list){out->headers, out->header_count};
    } else {
        made->content.error = (codec_error){(uint8_t)status, {out->error.data, out->error.len}};
    }
    return made;
}

typedef struct {
    packed items;
    list errors;
} batch_answer;

static const void *batch_answer_of(const batch *answers) {
    batch_answer *made = ktables_alloc(sizeof(batch_answer));
    *made = (batch_answer){packed_answers(answers), errors(answers)};
    return made;
}

/* The host leaves the value of a null header as it is in memory. */
static ktables_headers own_headers(const ktables_header *headers, size_t count) {
    ktables_header *own = ktables_alloc(count * sizeof(ktables_header));
    for (size_t index = 0; index < count; index++) {
        own[index] = headers[index];
        if (!own[index].has_value)
            own[index].value = (ktables_bytes){NULL, 0};
    }
    return (ktables_headers){own, count};
}

/* The functions that the host calls. */

const void *ktables_decode_value_(ktables_decode_value *decode, const uint8_t *raw, size_t len,
                                  const ktables_header *headers, size_t count) {
    ktables_output out = {0};
    ktables_status status = decode((ktables_bytes){raw, len}, own_headers(headers, count), &out);
    return answer_of(&out, status);
}

const void *ktables_convert_(ktables_convert *convert, const uint8_t *data, size_t len) {
    ktables_output out = {0};
    ktables_status status = convert((ktables_bytes){data, len}, &out);
    return answer_of(&out, status);
}

const void *ktables_decode_values_(ktables_decode_value *decode, ktables_packed_ raw, const ktables_headers *headers,
                                   size_t count) {
    batch answers = new_batch(raw);
    for (size_t index = 0; index < raw.count; index++) {
        ktables_headers own = {NULL, 0};
        if (index < count)
            own = own_headers(headers[index].items, headers[index].count);
        push(&answers, decode(item(raw, index), own, &answers.out));
    }
    return batch_answer_of(&answers);
}

const void *ktables_convert_all_(ktables_convert *convert, ktables_packed_ items) {
    batch answers = new_batch(items);
    for (size_t index = 0; index < items.count; index++)
        push(&answers, convert(item(items, index), &answers.out));
    return batch_answer_of(&answers);
}

const void *ktables_encode_values_(ktables_convert *encode, ktables_packed_ values) {
    typedef struct {
        packed items;
        list headers, errors;
    } encoded_values;
    batch answers = new_batch(values);
    list *headers = ktables_alloc(values.count * sizeof(list));
    bool has_headers = false;
    for (size_t index = 0; index < values.count; index++) {
        push(&answers, encode(item(values, index), &answers.out));
        ktables_output *out = &answers.out;
        headers[index] = (list){out->headers, out->header_count};
        has_headers |= out->header_count > 0;
        out->headers = NULL;
        out->header_count = out->header_capacity = 0;
    }
    encoded_values *made = ktables_alloc(sizeof(encoded_values));
    list own = {headers, has_headers ? values.count : 0};
    *made = (encoded_values){packed_answers(&answers), own, errors(&answers)};
    return made;
}

const void *ktables_split_key_(ktables_split *split, const uint8_t *key, size_t len) {
    typedef struct {
        uint8_t is_some;
        ktables_bytes group, member;
    } group_key;
    group_key *made = ktables_alloc(sizeof(group_key));
    memset(made, 0, sizeof(group_key));
    made->is_some = split((ktables_bytes){key, len}, &made->group, &made->member);
    return made;
}

const void *ktables_join_key_(ktables_join *join, const uint8_t *group, size_t group_len, const uint8_t *member,
                              size_t member_len) {
    ktables_output out = {0};
    ktables_status status = join((ktables_bytes){group, group_len}, (ktables_bytes){member, member_len}, &out);
    return answer_of(&out, status);
}

const void *ktables_split_keys_(ktables_split *split, ktables_packed_ keys) {
    typedef struct {
        packed groups, members;
        list foreign;
    } split_keys;
    batch groups = new_batch(keys), members = new_batch(keys);
    uint32_t *foreign = ktables_alloc(keys.count * sizeof(uint32_t));
    size_t foreign_count = 0;
    for (size_t index = 0; index < keys.count; index++) {
        ktables_bytes group = {NULL, 0}, member = {NULL, 0};
        if (split(item(keys, index), &group, &member)) {
            ktables_put(&groups.out, group);
            ktables_put(&members.out, member);
        } else {
            foreign[foreign_count++] = (uint32_t)index;
        }
        push(&groups, KTABLES_OK);
        push(&members, KTABLES_OK);
    }
    split_keys *made = ktables_alloc(sizeof(split_keys));
    *made = (split_keys){packed_answers(&groups), packed_answers(&members), {foreign, foreign_count}};
    return made;
}

const void *ktables_join_keys_(ktables_join *join, ktables_packed_ groups, ktables_packed_ members) {
    batch answers = new_batch(groups);
    for (size_t index = 0; index < groups.count; index++)
        push(&answers, join(item(groups, index), item(members, index), &answers.out));
    return batch_answer_of(&answers);
}

const void *ktables_describe_(ktables_info info) {
    typedef struct {
        ktables_bytes name, version;
        uint8_t wants_headers;
    } description;
    description *made = ktables_alloc(sizeof(description));
    *made = (description){ktables_text(info.name), ktables_text(info.version), info.wants_headers};
    return made;
}

const void *ktables_configure_(ktables_configure *configure, const uint8_t *topic, size_t topic_len, uint32_t role,
                               const uint8_t *config, size_t config_len) {
    typedef struct {
        uint8_t is_error;
        list text;
    } configured;
    ktables_context context = {{topic, topic_len}, (ktables_role)role, {config, config_len}};
    ktables_output out = {0};
    ktables_status status = configure(context, &out);
    configured *made = ktables_alloc(sizeof(configured));
    *made = (configured){status != KTABLES_OK, {out.error.data, out.error.len}};
    return made;
}

/* Bytes and text. */

ktables_bytes ktables_text(const char *text) {
    return (ktables_bytes){(const uint8_t *)text, text ? strlen(text) : 0};
}

bool ktables_equal(ktables_bytes a, ktables_bytes b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

uint64_t ktables_big_endian(const uint8_t *data, unsigned bytes) {
    uint64_t number = 0;
    while (bytes-- > 0)
        number = number << 8 | *data++;
    return number;
}

bool ktables_is_utf8(ktables_bytes bytes) {
    for (size_t at = 0; at < bytes.len;) {
        size_t len = utf8_len(bytes.data + at, bytes.len - at);
        if (len == 0)
            return false;
        at += len;
    }
    return true;
}

void ktables_put_json_string(ktables_output *out, ktables_bytes text) {
    static const char short_escapes[] = "\bb\ff\nn\rr\tt\"\"\\\\";
    ktables_put_byte(out, '"');
    size_t written = 0;
    for (size_t at = 0; at < text.len; at++) {
        uint8_t byte = text.data[at];
        if (byte >= ' ' && byte != '"' && byte != '\\')
            continue;
        ktables_put(out, (ktables_bytes){text.data + written, at - written});
        written = at + 1;
        const char *escape = short_escapes;
        while (*escape && (uint8_t)*escape != byte)
            escape += 2;
        if (*escape) {
            ktables_put_byte(out, '\\');
            ktables_put_byte(out, (uint8_t)escape[1]);
        } else {
            ktables_putf(out, "\\u%04x", byte);
        }
    }
    ktables_put(out, (ktables_bytes){text.data + written, text.len - written});
    ktables_put_byte(out, '"');
}

/* Reading JSON. */

ktables_json ktables_json_read(ktables_bytes text) {
    return (ktables_json){text.data, text.data, text.data + text.len, true, false, NULL};
}

static bool fail(ktables_json *json, const char *error) {
    if (!json->error)
        json->error = error;
    return false;
}

/* Skips white space, and returns the next byte, or 0 at the end. */
static uint8_t peek(ktables_json *json) {
    while (json->at < json->end && strchr(" \t\r\n", *json->at) && *json->at)
        json->at++;
    return json->at < json->end && !json->error ? *json->at : 0;
}

static bool take(ktables_json *json, uint8_t byte, const char *expected) {
    if (peek(json) != byte)
        return fail(json, expected);
    json->at++;
    return true;
}

static bool take_word(ktables_json *json, const char *word) {
    size_t len = strlen(word);
    if (peek(json) != (uint8_t)word[0] || (size_t)(json->end - json->at) < len || memcmp(json->at, word, len) != 0)
        return false;
    json->at += len;
    json->is_first = false;
    return true;
}

static bool begin(ktables_json *json, uint8_t bracket, const char *expected) {
    json->is_first = true;
    return take(json, bracket, expected);
}

/* Returns true if another member or item follows, and false after the closing bracket. */
static bool has_next(ktables_json *json, uint8_t bracket, const char *expected) {
    if (peek(json) == bracket) {
        json->at++;
        json->is_first = false;
        return false;
    }
    if (!json->is_first && !take(json, ',', expected))
        return false;
    json->is_first = false;
    return !json->error;
}

bool ktables_json_object(ktables_json *json) {
    return begin(json, '{', "expected an object");
}

bool ktables_json_member(ktables_json *json, ktables_bytes *name) {
    return has_next(json, '}', "expected , or }") && ktables_json_string(json, name) &&
           take(json, ':', "expected : after the name of a member");
}

bool ktables_json_array(ktables_json *json) {
    return begin(json, '[', "expected an array");
}

bool ktables_json_item(ktables_json *json) {
    return has_next(json, ']', "expected , or ]");
}

/* Reads the four hexadecimal digits of an escape. */
static bool read_hex(ktables_json *json, uint32_t *number) {
    *number = 0;
    for (int digit = 0; digit < 4; digit++, json->at++) {
        uint8_t byte = json->at < json->end ? *json->at : 0, lower = byte | 0x20;
        bool is_letter = lower >= 'a' && lower <= 'f';
        if (!is_letter && !(byte >= '0' && byte <= '9'))
            return fail(json, "expected four hexadecimal digits after \\u");
        *number = *number << 4 | (uint32_t)(is_letter ? lower - 'a' + 10 : byte - '0');
    }
    return true;
}

/* Reads the code point of an escape \u, which may be a pair of surrogates. */
static bool read_code_point(ktables_json *json, uint32_t *point) {
    uint32_t low;
    if (!read_hex(json, point))
        return false;
    if (*point < 0xd800 || *point > 0xdfff)
        return true;
    /* In what is skipped, a surrogate without its pair does no harm. */
    if (json->is_skipping) {
        *point = 0xfffd;
        return true;
    }
    bool has_pair = *point < 0xdc00 && json->end - json->at >= 6 && json->at[0] == '\\' && json->at[1] == 'u';
    if (!has_pair)
        return fail(json, "a surrogate without its pair");
    json->at += 2;
    if (!read_hex(json, &low))
        return false;
    if (low < 0xdc00 || low > 0xdfff)
        return fail(json, "a surrogate without its pair");
    *point = 0x10000 + ((*point - 0xd800) << 10) + (low - 0xdc00);
    return true;
}

static uint8_t *write_utf8(uint8_t *to, uint32_t point) {
    if (point < 0x80) {
        *to++ = (uint8_t)point;
        return to;
    }
    unsigned more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    static const uint8_t leads[] = {0, 0xc0, 0xe0, 0xf0};
    *to++ = (uint8_t)(leads[more] | point >> (6 * more));
    while (more-- > 0)
        *to++ = (uint8_t)(0x80 | (point >> (6 * more) & 0x3f));
    return to;
}

bool ktables_json_string(ktables_json *json, ktables_bytes *text) {
    static const char short_escapes[] = "b\bf\fn\nr\rt\t\"\"\\\\//";
    json->is_first = false;
    if (!take(json, '"', "expected a string"))
        return false;
    const uint8_t *closing = json->at;
    while (closing < json->end && *closing != '"')
        closing += *closing == '\\' ? 2 : 1;
    if (closing >= json->end)
        return fail(json, "a string without an end");
    /* The text is not longer than its escaped form. */
    uint8_t *start = ktables_alloc((size_t)(closing - json->at)), *to = start;
    while (json->at < closing) {
        uint8_t byte = *json->at++;
        if (byte < ' ')
            return fail(json, "a control character in a string");
        if (byte != '\\') {
            *to++ = byte;
            continue;
        }
        byte = *json->at++;
        uint32_t point;
        const char *escape = short_escapes;
        while (*escape && (uint8_t)*escape != byte)
            escape += 2;
        if (*escape)
            *to++ = (uint8_t)escape[1];
        else if (byte == 'u' && read_code_point(json, &point))
            to = write_utf8(to, point);
        else
            return fail(json, "an unknown escape in a string");
    }
    json->at = closing + 1;
    *text = (ktables_bytes){start, (size_t)(to - start)};
    return true;
}

bool ktables_json_bool(ktables_json *json, bool *value) {
    *value = take_word(json, "true");
    return *value || take_word(json, "false") || fail(json, "expected true or false");
}

bool ktables_json_null(ktables_json *json) {
    return take_word(json, "null");
}

static size_t take_digits(ktables_json *json) {
    const uint8_t *start = json->at;
    while (json->at < json->end && *json->at >= '0' && *json->at <= '9')
        json->at++;
    return (size_t)(json->at - start);
}

bool ktables_json_number(ktables_json *json, ktables_bytes *text) {
    peek(json);
    const uint8_t *start = json->at;
    if (json->at < json->end && *json->at == '-')
        json->at++;
    bool has_zero = json->at < json->end && *json->at == '0';
    size_t digits = take_digits(json);
    bool is_number = digits == 1 || (digits > 1 && !has_zero);
    if (is_number && json->at < json->end && *json->at == '.') {
        json->at++;
        is_number = take_digits(json) > 0;
    }
    if (is_number && json->at < json->end && (*json->at | 0x20) == 'e') {
        json->at++;
        if (json->at < json->end && (*json->at == '+' || *json->at == '-'))
            json->at++;
        is_number = take_digits(json) > 0;
    }
    if (!is_number || json->error) {
        json->at = start;
        return fail(json, "expected a number");
    }
    json->is_first = false;
    *text = (ktables_bytes){start, (size_t)(json->at - start)};
    return true;
}

bool ktables_json_uint(ktables_json *json, uint64_t max, uint64_t *number) {
    ktables_bytes text;
    if (!ktables_json_number(json, &text))
        return false;
    uint64_t read = 0;
    for (size_t index = 0; index < text.len; index++) {
        unsigned digit = (unsigned)text.data[index] - '0';
        if (digit > 9 || read > (max - digit) / 10 || max < digit) {
            json->at = text.data;
            return fail(json, "expected a whole number within the limits");
        }
        read = read * 10 + digit;
    }
    *number = read;
    return true;
}

bool ktables_json_skip(ktables_json *json) {
    /* Which brackets are open, as bits: true for an object. The last one is the lowest bit. */
    size_t depth = 0, capacity = 0;
    bool *is_object = NULL;
    json->is_skipping = true;
    do {
        ktables_bytes text;
        uint8_t byte = peek(json);
        if (byte == '{' || byte == '[') {
            is_object = reserve(is_object, depth, &capacity, sizeof(bool));
            is_object[depth++] = byte == '{';
            json->at++;
            json->is_first = true;
        } else if (byte == '"') {
            ktables_json_string(json, &text);
        } else if (!take_word(json, "true") && !take_word(json, "false") && !take_word(json, "null")) {
            ktables_json_number(json, &text);
        }
        while (depth > 0 && !json->error) {
            bool has_more = is_object[depth - 1] ? ktables_json_member(json, &text) : ktables_json_item(json);
            if (has_more)
                break;
            depth--;
        }
    } while (depth > 0 && !json->error);
    json->is_skipping = false;
    return !json->error;
}

bool ktables_json_end(ktables_json *json) {
    peek(json);
    return json->at == json->end ? !json->error : fail(json, "expected the end");
}

ktables_status ktables_json_error(const ktables_json *json, ktables_output *out) {
    const char *error = json->error ? json->error : "unexpected content";
    return ktables_error(out, KTABLES_INVALID, "at byte %zu: %s", (size_t)(json->at - json->start), error);
}
