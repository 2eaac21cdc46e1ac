// A pod network through a vxlan tunnel, as a backend for Twill in JavaScript.
//
// Each node has one tunnel link for each address family and tells the others its MAC address. Three entries per peer lead a
// packet there: the route sends it into the tunnel, the neighbour gives the MAC address of the other end, and the forwarding
// entry says at which node that is.
//
// How the contract (wit/backend.wit) looks from here:
//   a record is an object with names in camelCase    { podMtu: 1450 }
//   a variant is an object with a tag                { tag: "ipv4", val: [10, 244, 1, 0] }
//   an option is a value or null, a list an Array (of u8: a Uint8Array), a tuple an Array
//   a result is what the function returns, or what it throws

import log from "twill:backend/log@1.0.0";

/** What an outer packet has around an inner one: an IP header, and UDP, vxlan and Ethernet headers (30 bytes). */
const OVERHEAD = { ipv4: 20 + 30, ipv6: 40 + 30 };

export const planner = {
    describe() {
        return { name: "overlay-js", version: "1.0.0", accepts: [], requires: ["link.vxlan", "route", "neighbor", "forwarding"] };
    },

    /** What this node needs, whoever its peers are. */
    planNode(node) {
        const vni = vniOf(node);
        const plan = { links: [], intents: [], publish: [], podMtu: node.uplink.mtu };
        for (const family of node.families) {
            const mac = macOf(node, family.family);
            const mtu = node.uplink.mtu - OVERHEAD[family.family];
            const vxlan = { vni, port: 0, local: family.local, learning: false, gbp: false, metadata: false };
            plan.links.push({
                name: linkName(node, vni, family.family),
                kind: { tag: "vxlan", val: vxlan },
                mtu,
                mac,
                addresses: [{ address: family.subnet.address, length: family.family === "ipv4" ? 32 : 128 }],
            });
            plan.publish.push({ family: family.family, data: JSON.stringify({ MAC: hexOf(mac) }) });
            plan.podMtu = Math.min(plan.podMtu, mtu);
        }
        log.emit("debug", `planned ${plan.links.length} links`);
        return plan;
    },

    /** One verdict per peer, in their order. */
    planPeers(node, peers) {
        const vni = vniOf(node);
        return peers.map((peer) => planPeer(node, vni, peer));
    },
};

function planPeer(node, vni, peer) {
    const intents = [];
    for (const family of peer.families) {
        if (family.published === null || family.published === undefined) {
            return { tag: "incomplete", val: `has published nothing for ${family.family} yet` };
        }
        const mac = publishedMac(family.published);
        if (mac === null) {
            return { tag: "invalid", val: `published for ${family.family} what is not {"MAC":"0e:11:22:33:44:55"}` };
        }
        const link = linkName(node, vni, family.family);
        for (const subnet of family.subnets) {
            // The other end of the tunnel answers to the first address of its subnet.
            const gateway = subnet.address;
            intents.push({ tag: "neighbor", val: { link, address: gateway, mac } });
            intents.push({
                tag: "route",
                val: {
                    destination: subnet, device: { tag: "link", val: link }, gateway, onLink: true,
                    source: null, mtu: null, metric: null, encap: null,
                },
            });
        }
        intents.push({ tag: "forwarding", val: { link, mac, remote: family.public } });
    }
    return { tag: "plan", val: intents };
}

/** The operator's `VNI` out of net-conf.json, or 100. */
function vniOf(node) {
    let config;
    try {
        config = parsed(node.config.trim() || "{}");
    } catch (error) {
        throw { tag: "bad-config", val: `is not JSON: ${error.message}` };
    }
    // Keys of net-conf.json may be written in any case.
    const key = Object.keys(config ?? {}).find((key) => key.toLowerCase() === "vni");
    const vni = key === undefined ? 100 : config[key];
    if (!Number.isInteger(vni) || vni < 1 || vni > 0xffffff) {
        throw { tag: "bad-config", val: `VNI is ${JSON.stringify(vni)}, but should be a whole number from 1 to 16777215` };
    }
    return vni;
}

/** Reads JSON, unless it is nested deeper than anything here should be: the stack of a backend is small. */
function parsed(text) {
    if (text.split(/[[{]/).length > 100) {
        throw new Error("it has more than 100 brackets");
    }
    return JSON.parse(text);
}

function linkName(node, vni, family) {
    return family === "ipv4" ? `${node.linkPrefix}.${vni}` : `${node.linkPrefix}-v6.${vni}`;
}

/** A MAC address that is always the same on this node: six bytes of its seed for each family, locally administered. */
function macOf(node, family) {
    const start = family === "ipv4" ? 0 : 6;
    const mac = Array.from(node.seed.slice(start, start + 6));
    mac[0] = (mac[0] & 0xfc) | 0x02;
    return mac;
}

function hexOf(mac) {
    return mac.map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** Reads `{"MAC":"0e:11:22:33:44:55"}`. Another machine wrote it: it may be anything. */
function publishedMac(text) {
    let mac;
    try {
        mac = parsed(text)?.MAC;
    } catch {
        return null;
    }
    if (typeof mac !== "string" || !/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(mac)) {
        return null;
    }
    const bytes = mac.split(":").map((digits) => parseInt(digits, 16));
    const isOneStation = (bytes[0] & 1) === 0 && bytes.some((byte) => byte !== 0);
    return isOneStation ? bytes : null;
}
