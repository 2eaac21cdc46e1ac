// As much of a JSON reader as a backend needs: the members of one object.

#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>

// A part of somebody else's text. Does not end in a zero.
typedef struct {
    const char *ptr;
    size_t len;
} json_text;

// Finds a member of the object that `object` is, whose name is `key` in whatever case, as flannel reads net-conf.json. The
// value is its text as it stands there, a string with its quotes. False if there is none, or the text is not an object.
// Reads nothing outside the text, whatever it is; does not check what it steps over.
bool json_member(json_text object, const char *key, json_text *value);

#endif
