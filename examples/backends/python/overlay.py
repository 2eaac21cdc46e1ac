"""A pod network through a vxlan tunnel, as a backend for Twill in Python.

Each node has one tunnel link for each address family and tells the others its MAC address. Three entries per peer lead a
packet there: the route sends it into the tunnel, the neighbour gives the MAC address of the other end, and the forwarding
entry says at which node that is.

How the contract (wit/backend.wit) looks from here:
  a record is a dataclass          NodePlan(links, intents, publish, pod_mtu)
  a variant has a class per case   IpAddress_Ipv4((10, 244, 1, 0))
  an option is a value or None, a list a list (of u8: bytes), a tuple a tuple
  a result is what the function returns, or an Err that it raises
"""

import json
import re
from typing import List, Optional, Tuple

from componentize_py_types import Err
from wit_world.imports import log
from wit_world.imports.types import (
    Descriptor, Device_Link, Failure_BadConfig, Forwarding, Intent_Forwarding, Intent_Neighbor, Intent_Route, IpFamily,
    Link, LinkKind_Vxlan, Neighbor, Node, NodePlan, Peer, Prefix, Publication, Route, Verdict, Verdict_Incomplete,
    Verdict_Invalid, Verdict_Plan, Vxlan,
)

Mac = Tuple[int, int, int, int, int, int]

# What an outer packet has around an inner one: an IP header, and UDP, vxlan and Ethernet headers (30 bytes).
OVERHEAD = {IpFamily.IPV4: 20 + 30, IpFamily.IPV6: 40 + 30}
MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


class Planner:
    """The interface that a backend exports."""

    def describe(self) -> Descriptor:
        return Descriptor("overlay-py", "1.0.0", [], ["link.vxlan", "route", "neighbor", "forwarding"])

    def plan_node(self, node: Node) -> NodePlan:
        """What this node needs, whoever its peers are."""
        vni = vni_of(node)
        plan = NodePlan(links=[], intents=[], publish=[], pod_mtu=node.uplink.mtu)
        for family in node.families:
            mac = mac_of(node, family.family)
            mtu = max(0, node.uplink.mtu - OVERHEAD[family.family])
            vxlan = Vxlan(vni, port=0, local=family.local, learning=False, gbp=False, metadata=False)
            address = Prefix(family.subnet.address, 32 if family.family == IpFamily.IPV4 else 128)
            plan.links.append(Link(link_name(node, vni, family.family), LinkKind_Vxlan(vxlan), mtu, mac, [address]))
            plan.publish.append(Publication(family.family, json.dumps({"MAC": hex_of(mac)})))
            plan.pod_mtu = min(plan.pod_mtu, mtu)
        log.emit(log.Level.DEBUG, f"planned {len(plan.links)} links")
        return plan

    def plan_peers(self, node: Node, peers: List[Peer]) -> List[Verdict]:
        """One verdict per peer, in their order."""
        vni = vni_of(node)
        return [plan_peer(node, vni, peer) for peer in peers]


def plan_peer(node: Node, vni: int, peer: Peer) -> Verdict:
    intents = []
    for family in peer.families:
        if family.published is None:
            return Verdict_Incomplete(f"has published nothing for {family.family.name} yet")
        mac = published_mac(family.published)
        if mac is None:
            return Verdict_Invalid(f'published for {family.family.name} what is not {{"MAC":"0e:11:22:33:44:55"}}')
        link = link_name(node, vni, family.family)
        for subnet in family.subnets:
            # The other end of the tunnel answers to the first address of its subnet.
            gateway = subnet.address
            intents.append(Intent_Neighbor(Neighbor(link, gateway, mac)))
            intents.append(Intent_Route(Route(
                destination=subnet, device=Device_Link(link), gateway=gateway, on_link=True,
                source=None, mtu=None, metric=None, encap=None,
            )))
        intents.append(Intent_Forwarding(Forwarding(link, mac, family.public)))
    return Verdict_Plan(intents)


def vni_of(node: Node) -> int:
    """The operator's `VNI` out of net-conf.json, or 100."""
    try:
        config = parsed(node.config.strip() or "{}")
    except ValueError as error:
        raise Err(Failure_BadConfig(f"is not JSON: {error}"))
    # Keys of net-conf.json may be written in any case.
    keys = {key.lower(): value for key, value in config.items()} if isinstance(config, dict) else {}
    vni = keys.get("vni", 100)
    if type(vni) is not int or not 1 <= vni <= 0xFFFFFF:
        raise Err(Failure_BadConfig(f"VNI is {json.dumps(vni)}, but should be a whole number from 1 to 16777215"))
    return vni


def parsed(text: str) -> object:
    """Reads JSON, unless it is nested deeper than anything here should be: the stack of a backend is small."""
    if text.count("[") + text.count("{") > 100:
        raise ValueError("it has more than 100 brackets")
    return json.loads(text)


def link_name(node: Node, vni: int, family: IpFamily) -> str:
    return f"{node.link_prefix}.{vni}" if family == IpFamily.IPV4 else f"{node.link_prefix}-v6.{vni}"


def mac_of(node: Node, family: IpFamily) -> Mac:
    """A MAC address that is always the same on this node: six bytes of its seed for each family, locally administered."""
    start = 0 if family == IpFamily.IPV4 else 6
    first, *rest = node.seed[start:start + 6]
    return (first & 0xFC | 0x02, *rest)


def hex_of(mac: Mac) -> str:
    return ":".join(f"{byte:02x}" for byte in mac)


def published_mac(text: str) -> Optional[Mac]:
    """Reads `{"MAC":"0e:11:22:33:44:55"}`. Another machine wrote it: it may be anything."""
    try:
        content = parsed(text)
    except ValueError:
        return None
    mac = content.get("MAC") if isinstance(content, dict) else None
    if not isinstance(mac, str) or not MAC.fullmatch(mac):
        return None
    octets = tuple(int(digits, 16) for digits in mac.split(":"))
    is_one_station = octets[0] & 1 == 0 and any(octets)
    return octets if is_one_station else None
