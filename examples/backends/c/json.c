#include "json.h"

typedef struct {
    const char *at, *end;
} reader;

static bool is(const reader *r, char c) { return r->at < r->end && *r->at == c; }

static void space(reader *r) {
    while (is(r, ' ') || is(r, '\t') || is(r, '\n') || is(r, '\r')) r->at++;
}

// Steps over a character, if it is there after some space.
static bool take(reader *r, char c) {
    space(r);
    if (!is(r, c)) return false;
    r->at++;
    return true;
}

// Steps over a string, behind its second quote. A quote after a backslash is none.
static bool string(reader *r, json_text *content) {
    if (!take(r, '"')) return false;
    content->ptr = r->at;
    while (r->at < r->end && *r->at != '"') r->at += *r->at == '\\' && r->end - r->at > 1 ? 2 : 1;
    content->len = (size_t)(r->at - content->ptr);
    return take(r, '"');
}

// Steps over a value: a string, or everything up to the comma or bracket that ends it.
static json_text value(reader *r) {
    space(r);
    json_text found = {r->at, 0}, ignored;
    size_t depth = 0;
    while (r->at < r->end) {
        char c = *r->at;
        if (depth == 0 && (c == ',' || c == '}' || c == ']' || c == ' ' || c == '\t' || c == '\n' || c == '\r')) break;
        if (c == '"') {
            if (!string(r, &ignored)) break;
            continue;
        }
        if (c == '{' || c == '[') depth++;
        if ((c == '}' || c == ']') && depth > 0) depth--;
        r->at++;
    }
    found.len = (size_t)(r->at - found.ptr);
    return found;
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c; }

static bool same(json_text text, const char *key) {
    size_t i = 0;
    while (i < text.len && key[i] && lower(text.ptr[i]) == lower(key[i])) i++;
    return i == text.len && !key[i];
}

bool json_member(json_text object, const char *key, json_text *found) {
    reader r = {object.ptr, object.ptr + object.len};
    json_text name;
    if (!take(&r, '{')) return false;
    while (string(&r, &name) && take(&r, ':')) {
        *found = value(&r);
        if (same(name, key)) return found->len > 0;
        if (!take(&r, ',')) return false;
    }
    return false;
}
