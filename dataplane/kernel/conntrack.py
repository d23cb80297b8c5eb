"""Forgetting tracked connections, so that their next packet is balanced anew (pure).

One request per flow names the fields that must match (`CTA_FILTER`, Linux 5.8); older kernels
refuse it rather than forget everything.

Source: linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import struct

from dataplane.diff import Flow
from dataplane.kernel.netlink import Message, attribute, attribute_u8, attribute_u32, nested
from dataplane.kernel.rtnetlink import AF_INET
from dataplane.plan import Protocol

_DELETE = (1 << 8) | 2
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_FILTER = 1, 2, 25
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_V4_SRC, _CTA_IP_V4_DST = 1, 2
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT = 1, 2
_CTA_FILTER_ORIG_FLAGS, _CTA_FILTER_REPLY_FLAGS = 1, 2
_MATCH_IP_SRC, _MATCH_IP_DST, _MATCH_PROTO_NUM, _MATCH_PROTO_SRC_PORT = 1, 2, 8, 16
_NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17}


def forget(flow: Flow) -> Message:
    """Delete the entries of `flow` from the connection table; it is no error to find none."""
    reply_flags = _MATCH_IP_SRC
    reply = [nested(_CTA_TUPLE_IP, attribute(_CTA_IP_V4_SRC, flow.backend.packed))]
    if flow.protocol is not None:
        reply_flags |= _MATCH_PROTO_NUM
        protocol = [attribute_u8(_CTA_PROTO_NUM, _NUMBERS[flow.protocol])]
        if flow.port is not None:
            reply_flags |= _MATCH_PROTO_SRC_PORT
            protocol.append(attribute(_CTA_PROTO_SRC_PORT, struct.pack("!H", flow.port)))
        reply.append(nested(_CTA_TUPLE_PROTO, *protocol))
    parts = [nested(_CTA_TUPLE_REPLY, *reply)]
    flags = [attribute_u32(_CTA_FILTER_REPLY_FLAGS, reply_flags)]
    if flow.vip is not None:
        original = nested(_CTA_TUPLE_IP, attribute(_CTA_IP_V4_DST, flow.vip.packed))
        parts.append(nested(_CTA_TUPLE_ORIG, original))
        flags.insert(0, attribute_u32(_CTA_FILTER_ORIG_FLAGS, _MATCH_IP_DST))
    # With version 0 the kernel reads no family, and then no addresses.
    header = struct.pack("=BBH", AF_INET, 1, 0)
    return Message(_DELETE, 0, header + b"".join(parts) + nested(_CTA_FILTER, *flags))
