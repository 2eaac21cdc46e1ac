// A pod network through a vxlan tunnel, as a backend for Twill in C.
//
// Each node has one tunnel link for each address family and tells the others its MAC address. Three entries per peer lead a
// packet there: the route sends it into the tunnel, the neighbour gives the MAC address of the other end, and the forwarding
// entry says at which node that is.
//
// How the contract (wit/backend.wit) looks from here: backend.h, which is written out of it, has a struct for each record,
// a struct with a tag and a union for each variant, one with `is_some` for each option, and one with `ptr` and `len` for each
// list and string. Strings do not end in a zero.
//
// Memory: what is returned belongs to the caller, who gives every list and string in it to free(). So each has a piece of its
// own, also where two are alike. Of the arguments nothing is given back: the instance ends with the call.

#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "json.h"

typedef exports_twill_backend_planner_node_t node;
typedef exports_twill_backend_planner_peer_t peer;
typedef exports_twill_backend_planner_node_plan_t node_plan;
typedef exports_twill_backend_planner_verdict_t verdict;
typedef exports_twill_backend_planner_failure_t failure;
typedef twill_backend_types_ip_family_t family;
typedef twill_backend_types_intent_t intent;
typedef twill_backend_types_link_t link;
typedef twill_backend_types_mac_address_t mac;
typedef twill_backend_types_publication_t publication;
typedef backend_string_t string;

enum { IPV4 = TWILL_BACKEND_TYPES_IP_FAMILY_IPV4 };
enum { DEFAULT_VNI = 100, MAX_VNI = 0xffffff, MAC_DIGITS = 17 };

// What an outer packet has around an inner one: an IP header, and UDP, vxlan and Ethernet headers (30 bytes).
static uint32_t overhead(family family) { return family == IPV4 ? 20 + 30 : 40 + 30; }

// Memory that is all zeros, at least one byte. Without any left, the call ends here.
static void *new(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) abort();
    return memory;
}

static string text_of(const char *text) {
    string copy;
    backend_string_dup(&copy, text);
    return copy;
}

static const char *name_of(family family) { return family == IPV4 ? "IPv4" : "IPv6"; }

static string sentence(const char *start, family family, const char *end) {
    char *text = new(strlen(start) + strlen(end) + 5, 1);
    strcat(strcat(strcpy(text, start), name_of(family)), end);
    return (string){(uint8_t *)text, strlen(text)};
}

// The operator's VNI out of net-conf.json, or 100. False if it is no VNI.
static bool vni_of(const node *node, uint32_t *vni) {
    json_text value;
    *vni = DEFAULT_VNI;
    if (!json_member((json_text){(const char *)node->config.ptr, node->config.len}, "VNI", &value)) return true;
    *vni = 0;
    for (size_t i = 0; i < value.len && *vni <= MAX_VNI; i++) {
        if (value.ptr[i] < '0' || value.ptr[i] > '9') return false;
        *vni = *vni * 10 + (uint32_t)(value.ptr[i] - '0');
    }
    return *vni >= 1 && *vni <= MAX_VNI;
}

static bool refuse(failure *err) {
    err->tag = TWILL_BACKEND_TYPES_FAILURE_BAD_CONFIG;
    err->val.bad_config = text_of("VNI should be a whole number from 1 to 16777215");
    return false;
}

// `flannel.100`, `flannel-v6.100`
static string link_name(const node *node, uint32_t vni, family family) {
    const char *middle = family == IPV4 ? "." : "-v6.";
    char digits[10];
    size_t count = 0;
    do digits[count++] = (char)('0' + vni % 10); while (vni /= 10);
    size_t before = node->link_prefix.len + strlen(middle);
    char *name = new(before + count, 1);
    memcpy(name, node->link_prefix.ptr, node->link_prefix.len);
    memcpy(name + node->link_prefix.len, middle, strlen(middle));
    for (size_t i = 0; i < count; i++) name[before + i] = digits[count - 1 - i];
    return (string){(uint8_t *)name, before + count};
}

// A MAC address that is always the same on this node: six bytes of its seed for each family, locally administered.
static mac mac_of(const node *node, family family) {
    mac mac;
    memcpy(&mac, node->seed.ptr + (family == IPV4 ? 0 : 6), sizeof mac);
    mac.f0 = (uint8_t)((mac.f0 & 0xfc) | 0x02);
    return mac;
}

// `{"MAC":"0e:11:22:33:44:55"}`
static string published(mac mac) {
    static const char HEX[] = "0123456789abcdef";
    string text = text_of("{\"MAC\":\"00:00:00:00:00:00\"}");
    uint8_t bytes[6];
    memcpy(bytes, &mac, 6);
    for (size_t i = 0; i < 6; i++) {
        text.ptr[8 + 3 * i] = (uint8_t)HEX[bytes[i] >> 4];
        text.ptr[9 + 3 * i] = (uint8_t)HEX[bytes[i] & 15];
    }
    return text;
}

static int digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// Reads what `published` writes. Another machine wrote it: it may be anything.
static bool published_mac(string text, mac *mac) {
    json_text value;
    if (!json_member((json_text){(const char *)text.ptr, text.len}, "MAC", &value)) return false;
    if (value.len != MAC_DIGITS + 2 || value.ptr[0] != '"') return false;
    uint8_t bytes[6], all = 0;
    for (size_t i = 0; i < 6; i++) {
        const char *pair = value.ptr + 1 + 3 * i;
        int high = digit(pair[0]), low = digit(pair[1]);
        if (high < 0 || low < 0 || pair[2] != (i < 5 ? ':' : '"')) return false;
        bytes[i] = (uint8_t)(high << 4 | low);
        all |= bytes[i];
    }
    memcpy(mac, bytes, 6);
    // The address of one station: not of many, and not nobody's.
    return (bytes[0] & 1) == 0 && all != 0;
}

void exports_twill_backend_planner_describe(exports_twill_backend_planner_descriptor_t *ret) {
    static const char *const REQUIRES[] = {"link.vxlan", "route", "neighbor", "forwarding"};
    ret->name = text_of("overlay-c");
    ret->version = text_of("1.0.0");
    ret->accepts = (backend_list_string_t){NULL, 0};
    ret->requires_ = (backend_list_string_t){new(4, sizeof(string)), 4};
    for (size_t i = 0; i < 4; i++) ret->requires_.ptr[i] = text_of(REQUIRES[i]);
}

// What this node needs, whoever its peers are.
bool exports_twill_backend_planner_plan_node(node *node, node_plan *ret, failure *err) {
    uint32_t vni;
    if (!vni_of(node, &vni)) return refuse(err);
    size_t count = node->families.len;
    ret->links = (twill_backend_types_list_link_t){new(count, sizeof(link)), count};
    ret->intents = (twill_backend_types_list_intent_t){NULL, 0};
    ret->publish = (twill_backend_types_list_publication_t){new(count, sizeof(publication)), count};
    ret->pod_mtu = node->uplink.mtu;
    for (size_t i = 0; i < count; i++) {
        const twill_backend_types_node_family_t *own = &node->families.ptr[i];
        link *link = &ret->links.ptr[i];
        link->name = link_name(node, vni, own->family);
        // What is not named here is zero: the kernel's port, no learning, no GBP, no metadata.
        link->kind.tag = TWILL_BACKEND_TYPES_LINK_KIND_VXLAN;
        link->kind.val.vxlan = (twill_backend_types_vxlan_t){.vni = vni, .local = own->local};
        link->mtu = node->uplink.mtu - overhead(own->family);
        link->mac.is_some = true;
        link->mac.val = mac_of(node, own->family);
        link->addresses.ptr = new(1, sizeof *link->addresses.ptr);
        link->addresses.len = 1;
        link->addresses.ptr[0].address = own->subnet.address;
        link->addresses.ptr[0].length = own->family == IPV4 ? 32 : 128;
        ret->publish.ptr[i] = (publication){own->family, published(link->mac.val)};
        if (link->mtu < ret->pod_mtu) ret->pod_mtu = link->mtu;
    }
    string line = text_of("planned the tunnel");
    twill_backend_log_emit(TWILL_BACKEND_LOG_LEVEL_DEBUG, &line);
    return true;
}

static verdict plan_peer(const node *node, uint32_t vni, const peer *peer) {
    size_t most = 0, count = 0;
    for (size_t i = 0; i < peer->families.len; i++) most += 2 * peer->families.ptr[i].subnets.len + 1;
    intent *intents = new(most, sizeof(intent));
    for (size_t i = 0; i < peer->families.len; i++) {
        const twill_backend_types_peer_family_t *its = &peer->families.ptr[i];
        mac mac;
        if (!its->published.is_some) {
            string why = sentence("has published nothing for ", its->family, " yet");
            return (verdict){TWILL_BACKEND_TYPES_VERDICT_INCOMPLETE, {.incomplete = why}};
        }
        if (!published_mac(its->published.val, &mac)) {
            string why = sentence("published for ", its->family, " what is not {\"MAC\":\"0e:11:22:33:44:55\"}");
            return (verdict){TWILL_BACKEND_TYPES_VERDICT_INVALID, {.invalid = why}};
        }
        for (size_t j = 0; j < its->subnets.len; j++) {
            // The other end of the tunnel answers to the first address of its subnet.
            twill_backend_types_prefix_t subnet = its->subnets.ptr[j];
            intent *neighbor = &intents[count++], *route = &intents[count++];
            neighbor->tag = TWILL_BACKEND_TYPES_INTENT_NEIGHBOR;
            neighbor->val.neighbor =
                (twill_backend_types_neighbor_t){link_name(node, vni, its->family), subnet.address, mac};
            route->tag = TWILL_BACKEND_TYPES_INTENT_ROUTE;
            route->val.route.destination = subnet;
            route->val.route.device.tag = TWILL_BACKEND_TYPES_DEVICE_LINK;
            route->val.route.device.val.link = link_name(node, vni, its->family);
            route->val.route.gateway = (twill_backend_types_option_ip_address_t){true, subnet.address};
            route->val.route.on_link = true;
        }
        intent *forwarding = &intents[count++];
        forwarding->tag = TWILL_BACKEND_TYPES_INTENT_FORWARDING;
        forwarding->val.forwarding =
            (twill_backend_types_forwarding_t){link_name(node, vni, its->family), mac, its->public_};
    }
    return (verdict){TWILL_BACKEND_TYPES_VERDICT_PLAN, {.plan = {intents, count}}};
}

// One verdict per peer, in their order.
bool exports_twill_backend_planner_plan_peers(node *node, exports_twill_backend_planner_list_peer_t *peers,
                                              exports_twill_backend_planner_list_verdict_t *ret, failure *err) {
    uint32_t vni;
    if (!vni_of(node, &vni)) return refuse(err);
    ret->ptr = new(peers->len, sizeof(verdict));
    ret->len = peers->len;
    for (size_t i = 0; i < peers->len; i++) ret->ptr[i] = plan_peer(node, vni, &peers->ptr[i]);
    return true;
}
