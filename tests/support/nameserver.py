"""A name server whose answers a file says, for tests of names that change and of servers that fail.

    nameserver.py ADDRESS FILE

FILE is JSON, read again for each query: {"mode": MODE, "a": [ADDRESS...], "aaaa": [ADDRESS...]}. MODE is
answer, servfail, nxdomain, hang (no answer at all), or garbage (bytes that are no message). With "only":
"a" or "aaaa" the other kind of query is answered by SERVFAIL.
"""

import ipaddress
import json
import socket
import struct
import sys

A, AAAA = 1, 28
SERVFAIL, NXDOMAIN = 2, 3


def question(query):
    at = 12
    while query[at] != 0:
        at += 1 + query[at]
    (kind,) = struct.unpack_from("!H", query, at + 1)
    return query[12 : at + 5], kind


def reply(query, zone):
    mode = zone["mode"]
    if mode == "hang":
        return None
    if mode == "garbage":
        return query[:2] + b"\xff" * 7
    asked, kind = question(query)
    name = {A: "a", AAAA: "aaaa"}.get(kind)
    code = {"servfail": SERVFAIL, "nxdomain": NXDOMAIN}.get(mode, 0)
    if name and zone.get("only", name) != name:
        code = SERVFAIL
    addresses = zone.get(name, []) if name and code == 0 else []
    records = b""
    for address in addresses:
        data = ipaddress.ip_address(address).packed
        records += struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(data)) + data
    # An answer, recursion desired and available.
    head = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(addresses), 0, 0)
    return head + asked + records


def main(address, path):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))
    print("ready", flush=True)
    while True:
        query, client = server.recvfrom(4096)
        with open(path, encoding="ascii") as file:
            found = reply(query, json.load(file))
        if found is not None:
            server.sendto(found, client)


main(*sys.argv[1:])
