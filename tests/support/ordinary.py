"""Ordinary traffic of many protocols, and loads of traffic.py: ordinary.py loads DESTINATION LOAD,SOURCE... sends one after the other, each ended
by a connection to a service. `others` is the host's side. Bounded, and only inside the test's namespaces."""
import os
import random
import select
import socket
import struct
import sys
import threading
import time

# The repository's tree stays as it is.
sys.dont_write_bytecode = True
import traffic
from traffic import ACK, FIN, PSH, RST, SYN, TCP_SERVICES, Raw, checksum, connect, icmp, ip, served, tcp, udp

CONTROL = 2100
# Services that stop when a client has used them, so that their ports were services a moment ago.
STOPPING_TCP = [88, 111, 135, 464, 631, 749, 2049, 3268, 20048]
STOPPING_UDP = [88, 111, 464, *range(27015, 27021)]


def datagram_socket(address, port=0):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((address, port))
    s.settimeout(2)
    return s


# The host's side.

class Others:
    def __init__(self, address):
        self.address = address
        self.listeners = {port: self.listen(port) for port in STOPPING_TCP + [CONTROL]}
        self.datagrams = {port: datagram_socket(address, port) for port in STOPPING_UDP + [69, 5060]}
        # RTP sockets of calls, by the first port of their pair.
        self.calls, self.pair = {}, 12000

    def listen(self, port):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((self.address, port))
        s.listen(64)
        return s

    def accept(self, port, s):
        connection, peer = s.accept()
        connection.settimeout(2)
        if port == CONTROL:
            return threading.Thread(target=self.command, args=(connection, peer), daemon=True).start()
        connection.sendall(b"hello")
        connection.close()

    def receive(self, port, s):
        data, peer = s.recvfrom(2000)
        if port == 69:
            return threading.Thread(target=self.file, args=(peer,), daemon=True).start()
        if data.startswith(b"INVITE"):
            self.pair += 2
            self.calls[self.pair] = [datagram_socket(self.address, self.pair + n) for n in (0, 1)]
            data = b"%d" % self.pair
        elif data.startswith(b"BYE"):
            for end in self.calls.pop(int(data.split()[1])):
                end.close()
        s.sendto(data, peer)

    def file(self, peer):
        with datagram_socket(self.address) as s:
            s.sendto(b"\0\3\0\1" + b"x" * 100, peer)
            s.recv(100)

    def command(self, connection, peer):
        words = connection.recv(1000).split()
        if words[0] == b"stop":
            for port in map(int, words[1:]):
                for place in (self.listeners, self.datagrams):
                    if port in place:
                        place.pop(port).close()
        elif words[0] == b"active":
            with socket.socket() as data:
                data.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                data.bind((self.address, 20))
                data.connect((peer[0], int(words[1])))
                data.sendall(b"x" * 1000)
        elif words[0] == b"ice":
            ends = [datagram_socket(self.address) for _ in range(4)]
            connection.sendall(b" ".join(b"%d" % end.getsockname()[1] for end in ends))
            for end in ends:
                data, other = end.recvfrom(100)
                end.sendto(data, other)
                end.close()
        connection.sendall(b" done")
        connection.close()


def others(address):
    side = Others(address)
    print("ready", flush=True)
    while True:
        places = [(port, s, side.accept) for port, s in side.listeners.items()]
        places += [(port, s, side.receive) for port, s in side.datagrams.items()]
        ready = set(select.select([s for _, s, _ in places], [], [], 0.05)[0])
        for port, s, take in places:
            if s in ready and s.fileno() >= 0:
                take(port, s)


# What several loads have in common.

def command(source, destination, text):
    with socket.create_connection((destination, CONTROL), 5, source_address=(source, 0)) as s:
        s.sendall(text)
        while not (answer := s.recv(100)).endswith(b"done"):
            assert answer, text


def ask(source, destination, port, data=b"question"):
    with datagram_socket(source) as s:
        s.sendto(data, (destination, port))
        return s.recv(2000)


def stop(source, destination, tcp_ports, udp_ports=()):
    """Uses these services, after which they end, and asks again as a client does that does not know."""
    for port in tcp_ports:
        assert connect(source, destination, port) is not None, "port %d" % port
    for port in udp_ports:
        ask(source, destination, port)
    command(source, destination, b"stop " + b" ".join(b"%d" % port for port in {*tcp_ports, *udp_ports}))
    raw = Raw(destination)
    for _ in range(3):
        for port in tcp_ports:
            connect(source, destination, port, wait=0.01)
        for port in udp_ports:
            raw.send(udp(source, 45000 + port % 1000, destination, port))


def group_sender(destination):
    """No route leads to a group."""
    raw = Raw(destination)
    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"net0")
    return raw


def six_of(address):
    return "fd68:1::" + ":".join(address.split(".")[2:])


def six(source, destination, protocol, payload, offset, hops=64):
    """An IPv6 packet whose payload has its checksum at this offset."""
    inet = lambda address: socket.inet_pton(socket.AF_INET6, address)
    ends = inet(source) + inet(destination)
    check = checksum(ends + struct.pack("!IHBB", len(payload), 0, 0, protocol) + payload)
    payload = payload[:offset] + struct.pack("!H", check) + payload[offset + 2:]
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops) + ends + payload


def segment(sport, dport, flags):
    return struct.pack("!HHIIBBHHH", sport, dport, random.getrandbits(32), random.getrandbits(32), 5 << 4, flags, 512, 0, 0)


def with_hops(packet, hops):
    return packet[:8] + bytes([hops]) + packet[9:]


# The clients' side.

def tftp(source, destination):
    """TFTP: ten files, each from a port of its own; the last acknowledgements come twice, after the server closed its sockets."""
    for _ in range(10):
        with datagram_socket(source) as s:
            s.sendto(b"\0\1file\0octet\0", (destination, 69))
            _, peer = s.recvfrom(600)
            for _ in range(2):
                s.sendto(b"\0\4\0\1", peer)
                time.sleep(0.01)


def ftp_active(source, destination):
    """FTP in active mode: this host connects from port 20 to the client, whose last segments come again after the end."""
    raw = Raw(destination)
    for _ in range(10):
        with socket.create_server((source, 0)) as listener:
            listener.settimeout(5)
            port = listener.getsockname()[1]
            client = threading.Thread(target=command, args=(source, destination, b"active %d" % port))
            client.start()
            data, _ = listener.accept()
            while data.recv(4096):
                pass
            data.close()
            client.join()
        for flags in (ACK, FIN | ACK, RST):
            raw.send(tcp(source, port, destination, 20, flags))


def dns_clients(source, destination):
    """Resolvers of clients: questions by UDP; by TCP and TLS, which this name server does not offer."""
    for _ in range(10):
        ask(source, destination, 53)
        for port in (53, 853):
            connect(source, destination, port, wait=0.01)


def ntp_pool(source, destination):
    """Clients of a time server that has left the pool: all versions and modes, from port 123 and others."""
    raw = Raw(destination)
    for version in range(8):
        for mode in range(8):
            for port in (123, 40000 + 8 * version + mode):
                raw.send(udp(source, port, destination, 123, bytes([version << 3 | mode]) + bytes(47)))


def windows_shares(source, destination):
    """A Windows client that looks for shares: SMB, NetBIOS and WebDAV; names and elections by broadcast."""
    raw = group_sender(destination)
    for _ in range(3):
        for port in (445, 139, 80):
            connect(source, destination, port, wait=0.02)
        for port in (137, 138):
            raw.send(udp(source, port, "10.68.255.255", port))
        raw.send(udp(source, 50000, "239.255.255.250", 3702))


def routing_protocols(source, destination):
    """Routers and tunnels: IGMP, PIM, OSPF, EIGRP, VRRP, RSVP, BGP, BFD, GRE, IPIP, 6in4, L2TP and others, to groups and to this host."""
    raw = group_sender(destination)
    for _ in range(3):
        for protocol, group in ((2, "224.0.0.1"), (2, "224.0.0.22"), (2, "224.0.0.251"), (103, "224.0.0.13"), (89, "224.0.0.5"), (89, "224.0.0.6"),
                                (88, "224.0.0.10"), (112, "224.0.0.18"), (113, "224.0.0.1")):
            raw.send(ip(protocol, source, group, bytes(24), ttl=1))
        for protocol in (2, 4, 41, 46, 47, 50, 51, 88, 89, 94, 97, 98, 103, 108, 112, 115, 137):
            raw.send(ip(protocol, source, destination, bytes(24)))
        raw.send(udp(source, 520, "224.0.0.9", 520))
        raw.send(udp(source, 646, "224.0.0.2", 646))
        raw.send(udp(source, 49152, destination, 3784))
        connect(source, destination, 179, wait=0.02)


def smart_home(source, destination):
    """Lamps, players, games and machines to be woken: broadcasts and groups of 20 programs."""
    raw = group_sender(destination)
    for port in (7, 9, 1900, 2021, 4992, 6666, 6667, 8610, 9999, 10001, 15600, 17500, 20005, 21027, 27036, 32414, 47808, 48689, 56700, 65001):
        for address in ("10.68.255.255", "255.255.255.255"):
            raw.send(udp(source, port, address, port))
    for group, port in (("224.0.2.60", 4445), ("224.0.23.12", 3671), ("224.0.0.107", 319), ("224.0.1.129", 320), ("239.255.0.1", 7400),
                        ("224.0.1.187", 5683), ("239.255.255.246", 7495), ("224.0.0.113", 9956)):
        raw.send(udp(source, port, group, port))


def device_answers(source, destination):
    """Devices that answer searches (SSDP, mDNS, WS-Discovery) when the asking sockets are closed, ten times each."""
    raw = Raw(destination)
    for service in (1900, 5353, 3702, 49153):
        for port in random.sample(range(32768, 61000), 10):
            raw.send(udp(source, service, destination, port, b"HTTP/1.1 200 OK\r\n\r\n"))
    # To multicast DNS itself, which does not run here.
    raw.send(udp(source, 5353, destination, 5353))


def path_mtu(source, destination):
    """Path MTU discovery and its failures: pings of growing size, datagrams in fragments, some of them lost, ICMP errors about connections
    of this host and about others."""
    raw = Raw(destination)
    for size in range(100, 1480, 100):
        raw.send(icmp(source, destination, 8, 0, bytes(size)))
    for _ in range(5):
        ask(source, destination, 53, b"long" * 900)
    for number in range(20):
        packet = udp(source, 2000 + number, destination, 53, bytes(1000))
        # 0x2000 is MF; the offset counts in eight bytes.
        for field, part in ((0x2000, packet[20:500]), (60, packet[500:])):
            if field == 60 or number % 2:
                raw.send(packet[:2] + struct.pack("!HHH", 20 + len(part), 100 + number, field) + packet[8:20] + part)
    with socket.create_connection((destination, 80), 2, source_address=(source, 0)) as s:
        mine = tcp(destination, 80, source, s.getsockname()[1], ACK)[:28]
        for quoted in (mine, *(tcp(destination, port, source, 443, ACK)[:28] for port in range(40000, 40020))):
            for kind, code in ((3, 4), (3, 1), (3, 13), (4, 0), (5, 1), (11, 0), (11, 1), (12, 0)):
                raw.send(icmp(source, destination, kind, code, quoted))
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert s.recv(100)


def traceroute_icmp(source, destination):
    """traceroute -I in both families: 30 hops of 3 echo requests."""
    raw = Raw(destination)
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw6:
        for number in range(90):
            raw.send(with_hops(icmp(source, destination, 8, 0, bytes(32)), 1 + number // 3))
            message = struct.pack("!BBHHH", 128, 0, 0, 7, number) + bytes(32)
            raw6.sendto(six(six_of(source), "fd68:1::1", 58, message, 2, 1 + number // 3), ("fd68:1::1", 0))


def traceroute_ports(source, destination):
    """traceroute -T, -U, -UL and -D, each with its one port."""
    raw = Raw(destination)
    for number in range(90):
        hops, sport = 1 + number // 3, 40000 + number
        raw.send(with_hops(tcp(source, sport, destination, 80, SYN), hops))
        raw.send(with_hops(udp(source, sport, destination, 53), hops))
        raw.send(ip(136, source, destination, struct.pack("!HHHH", sport, 53, 8, 0) + bytes(32), hops))
        raw.send(ip(33, source, destination, struct.pack("!HHBBHI", sport, 33434, 4, 0, 0, 1 << 24) + bytes(20), hops))


def mtr(source, destination):
    """mtr -u: a port more with each of 200 datagrams; mtr -T: port 80 from many ports."""
    raw = Raw(destination)
    for number in range(200):
        raw.send(with_hops(udp(source, 50000, destination, 33000 + number), 1 + number % 30))
        if number % 4 == 0:
            raw.send(with_hops(tcp(source, 33000 + number, destination, 80, SYN), 1 + number % 30))


def sip(source, destination):
    """A telephone: keepalives, eight calls with RTP and RTCP that go on after the end, SIP over TCP and TLS, which are not offered."""
    raw = Raw(destination)
    for _ in range(8):
        raw.send(udp(source, 5060, destination, 5060, b"\r\n\r\n"))
        pair = int(ask(source, destination, 5060, b"INVITE"))
        media = [udp(source, 17000 + pair % 1000 + n, destination, pair + n, bytes(172)) for n in (0, 1)]
        for packet in media * 3:
            raw.send(packet)
        ask(source, destination, 5060, b"BYE %d" % pair)
        for packet in media * 3:
            raw.send(packet)
    for port in (5061, 5060):
        connect(source, destination, port, wait=0.02)


def games(source, destination):
    """Six game servers have ended, and the list of servers still has them; checks of ICE go on after a call, to the four ports it had."""
    stop(source, destination, (), range(27015, 27021))
    with socket.create_connection((destination, CONTROL), 5, source_address=(source, 0)) as s, datagram_socket(source) as mine:
        s.sendall(b"ice")
        ports = [int(port) for port in s.recv(100).split()]
        binding = b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12)
        for port in ports:
            mine.sendto(binding, (destination, port))
        for _ in ports:
            mine.recv(100)
        assert s.recv(100) == b" done"
        for port in ports * 5:
            mine.sendto(binding, (destination, port))


def vpn_clients(source, destination):
    """WireGuard and OpenVPN clients of a server that has moved, from new ports each time."""
    raw = Raw(destination)
    for number in range(30):
        raw.send(udp(source, 20000 + number, destination, 51820, b"\1\0\0\0" + bytes(144)))
        raw.send(udp(source, 30000 + number, destination, 1194, b"\x38" + bytes(41)))


def ipsec(source, destination):
    """IPsec with this host, which has forgotten it: IKE, NAT traversal with keepalives, ESP, AH."""
    raw = Raw(destination)
    for _ in range(20):
        raw.send(udp(source, 500, destination, 500, bytes(200)))
        raw.send(udp(source, 4500, destination, 4500, bytes(200)))
        raw.send(udp(source, 4500, destination, 4500, b"\xff"))
        for protocol in (50, 51):
            raw.send(ip(protocol, source, destination, bytes(60)))


def quic(source, destination):
    """HTTP/3 to a server that has stopped offering it: new and old connections, from many ports, and HTTPS beside it."""
    raw = Raw(destination)
    for number in range(30):
        raw.send(udp(source, 40000 + number, destination, 443, b"\xc3\0\0\0\1" + bytes(1195)))
        raw.send(udp(source, 41000 + number, destination, 443, b"\x43" + bytes(40)))
        if number % 5 == 0:
            assert connect(source, destination, 443)


def check_tcp(source, destination):
    """Monitoring of ten services with pings, and of two that are down."""
    raw = Raw(destination)
    for _ in range(3):
        raw.send(icmp(source, destination, 8, 0, bytes(56)))
        for port in TCP_SERVICES:
            assert connect(source, destination, port)
        for port in (5666, 6556):
            connect(source, destination, port, wait=0.02)


def load_balancer(source, destination):
    """A load balancer's checks: SYN, SYN-ACK, RST to seven ports, of which two listen no more; connections that are closed by a RST."""
    raw = Raw(destination)
    for number in range(10):
        for port in (80, 443, 25, 143, 8080, 8081, 8082):
            raw.send(tcp(source, 42000 + number, destination, port, SYN))
        with socket.create_connection((destination, 80), 2, source_address=(source, 0)) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def snmp_syslog(source, destination):
    """A network's management: SNMP to an agent that is missing, messages to a log server that has moved, pings."""
    raw = Raw(destination)
    for number in range(20):
        raw.send(icmp(source, destination, 8, 0, bytes(56)))
        raw.send(udp(source, 42000 + number, destination, 161, b"0\x29\2\1\1\4\6public"))
        raw.send(udp(source, 514, destination, 514, b"<13>test"))


def mail_client(source, destination):
    """A mail program that configures itself: eight ports at once, of which six listen."""
    tries = []
    for port in (993, 143, 995, 110, 465, 587, 25, 2525):
        s = socket.socket()
        s.setblocking(False)
        s.bind((source, 0))
        s.connect_ex((destination, port))
        tries.append(s)
    time.sleep(0.1)
    for s in tries:
        s.close()
    for port in (443, 80, 993, 587):
        assert connect(source, destination, port)


def ident(source, destination):
    """Mail and IRC servers that this host uses: each asks its ident service, which does not run, and one tries to send mail back."""
    network = source.rsplit(".", 1)[0]
    raw = Raw(destination)
    for server in range(11, 31):
        raw.send(tcp("%s.%d" % (network, server), 40000, destination, 113, SYN))
    for _ in range(10):
        connect(source, destination, 113, wait=0.01)
        assert connect(source, destination, 25)


def happy_eyeballs(source, destination):
    """A client of five services by both families, of which IPv4 alone is offered."""
    for _ in range(3):
        for port in (80, 443, 587, 993, 143):
            with socket.socket(socket.AF_INET6) as s:
                s.settimeout(0.02)
                s.bind((six_of(source), 0))
                assert s.connect_ex(("fd68:1::1", port)), "IPv6 is not offered"
            assert connect(source, destination, port)


def half_closed(source, destination):
    """Clients that close one direction first, send late, or open with ECN, data or urgent flags."""
    raw = Raw(destination)
    for number in range(20):
        with socket.create_connection((destination, 8080), 2, source_address=(source, 0)) as s:
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            s.shutdown(socket.SHUT_WR)
            mine = s.getsockname()[1]
            while s.recv(1000):
                pass
        for flags in (FIN | ACK, FIN | PSH | ACK, ACK, RST | ACK):
            raw.send(tcp(source, mine, destination, 8080, flags))
        # ECE and CWR, PSH, URG; the second one is TCP Fast Open's.
        for flags, data in ((SYN | 0xC0, b""), (SYN | PSH, b"GET / HTTP/1.0\r\n\r\n"), (SYN | 32, b"")):
            raw.send(tcp(source, 43000 + 3 * number, destination, 443, flags, data=data))


def after_reboot(source, destination):
    """A client whose connections to ten services and to this host's own sockets were lost by a reboot: data, keepalives, FINs, new SYNs."""
    raw = Raw(destination)
    for _ in range(4):
        for port in TCP_SERVICES:
            for flags, data in ((PSH | ACK, b"data"), (ACK, b"\0"), (ACK, b""), (FIN | PSH | ACK, b"")):
                raw.send(tcp(source, 44000 + port, destination, port, flags, data=data))
            raw.send(tcp(source, 44000, destination, port, SYN))
        for port in range(35000, 35020):
            for flags in (PSH | ACK, FIN | ACK):
                raw.send(tcp(source, 5432, destination, port, flags))


def port_knocking(source, destination):
    """A user who knocks at two ports and connects by SSH, and again."""
    for _ in range(3):
        for port in (7000, 8000):
            connect(source, destination, port, wait=0.01)
        assert connect(source, destination, 22)


def printers(source, destination):
    """A print server that restarts: IPP, which it offers; port 9100 and SNMP, which it does not."""
    raw = Raw(destination)
    stop(source, destination, (631,))
    for number in range(10):
        raw.send(udp(source, 46000 + number, destination, 161, b"0\x29\2\1\1\4\6public"))
        connect(source, destination, 9100, wait=0.01)


def captive_portal(source, destination):
    """Programs of a guest whose connections to others this host leads to its portal: 20 ports, of three hosts."""
    for number, port in enumerate((80, 443, 25, 110, 143, 465, 587, 853, 993, 995, 1883, 3478, 4070, 5222, 5223, 5228, 7275, 8009, 8883, 9001)):
        assert connect(source, "198.51.100.%d" % (1 + number % 3), port), "port %d" % port


def nfs(source, destination):
    """NFS: a server that restarts, with rpcbind and mountd; and the end of connections that another server closes to reserved ports."""
    stop(source, destination, (111, 2049, 20048), (111,))
    raw = Raw(destination)
    for _ in range(4):
        # As many connections as a mount may have (nconnect).
        for port in range(700, 716):
            raw.send(tcp(source, 2049, destination, port, FIN | ACK))


def domain_clients(source, destination):
    """A client of a domain's controller that restarts: Kerberos, RPC, password changes, the global catalogue."""
    stop(source, destination, (88, 135, 464, 749, 3268), (88, 464))


def backscatter6(source, _destination):
    """Answers of a server that is flooded by IPv6 in this host's name."""
    target, sender = "fd68:1::1", six_of(source)
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for port in random.sample(range(1, 65536), 200):
            for flags in (SYN | ACK, RST, RST | ACK):
                raw.sendto(six(sender, target, 6, segment(80, port, flags), 16), (target, 0))
            quoted = six(target, sender, 6, segment(port, 80, SYN), 16)
            for kind, code in ((1, 0), (1, 4), (3, 0)):
                raw.sendto(six(sender, target, 58, struct.pack("!BBHI", kind, code, 0, 0) + quoted, 2), (target, 0))


def reflections(source, destination):
    """Servers that are asked in this host's name, a host for each of 17 protocols, 30 ports each: NTP, DNS, SSDP, memcached, CLDAP and others."""
    raw = Raw(destination)
    network = source.rsplit(".", 1)[0]
    for host, service in enumerate((17, 19, 53, 69, 111, 123, 137, 161, 389, 520, 623, 1900, 5353, 11211, 27015, 2049, 5060), 20):
        for port in random.sample(range(1024, 65536), 30):
            raw.send(udp("%s.%d" % (network, host), service, destination, port, b"\0\0\x84\0" + b"answer" * 20))


def loads(destination):
    """Prints for each load its name, how many seconds it took, and what was wrong, in lines with tabs."""
    for word in sys.argv[3:]:
        name, source = word.split(",")
        load = globals().get(name) or getattr(traffic, name)
        at, wrong = time.monotonic(), ""
        try:
            load(source, destination)
            served(source, destination)
        except (AssertionError, OSError) as error:
            wrong = repr(error)
        print(name, round(time.monotonic() - at, 1), wrong, sep="\t", flush=True)


if __name__ == "__main__":
    random.seed(1)
    globals()[sys.argv[1]](sys.argv[2])
    sys.stdout.flush()
    os._exit(0)
