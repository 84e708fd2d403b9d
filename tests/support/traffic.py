"""What nmap does not send: traffic.py LOAD SOURCE DESTINATION WORDS... Bounded, and only inside the test's namespaces."""
import os
import random
import select
import socket
import struct
import sys
import time

TCP_SERVICES = [22, 25, 80, 110, 143, 443, 587, 993, 995, 8080]
FTP = 21
DNS = 53
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip(protocol, source, destination, payload, ttl=64):
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), random.getrandbits(16), 0, ttl, protocol, 0,
                         socket.inet_aton(source), socket.inet_aton(destination))
    return header + payload


def pseudo(protocol, source, destination, length):
    return socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack("!BBH", 0, protocol, length)


def tcp(source, sport, destination, dport, flags, seq=None, ack=None, data=b""):
    seq = random.getrandbits(32) if seq is None else seq
    ack = random.getrandbits(32) if ack is None else ack
    ack = ack if flags & ACK else 0
    segment = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, 512, 0, 0) + data
    check = checksum(pseudo(6, source, destination, len(segment)) + segment)
    return ip(6, source, destination, segment[:16] + struct.pack("!H", check) + segment[18:])


def udp(source, sport, destination, dport, data=b"data"):
    length = 8 + len(data)
    head = struct.pack("!HHHH", sport, dport, length, 0)
    check = checksum(pseudo(17, source, destination, length) + head + data) or 0xFFFF
    return ip(17, source, destination, struct.pack("!HHHH", sport, dport, length, check) + data)


def icmp(source, destination, kind, code, body):
    message = struct.pack("!BBHI", kind, code, 0, 0) + body
    return ip(1, source, destination, message[:2] + struct.pack("!H", checksum(message)) + message[4:])


class Raw:
    def __init__(self, destination):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self.destination = destination

    def send(self, packet):
        self.socket.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))


def connect(source, destination, port, wait=2.0):
    """One exchange with a service: what it said; None if it did not answer."""
    with socket.socket() as s:
        s.settimeout(wait)
        s.bind((source, 0))
        try:
            s.connect((destination, port))
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return s.recv(100)
        except OSError:
            return None


# The host's side.

def serve(source, _destination):
    listeners, datagrams = {}, {}
    for port in TCP_SERVICES + [FTP]:
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("0.0.0.0", port))
        s.listen(512)
        listeners[s] = port
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("0.0.0.0", DNS))
    datagrams[s] = DNS
    # So that the groups' datagrams come up to the input hook, though no socket takes them.
    for group in ("224.0.0.251", "239.255.255.250", "224.0.0.252", "239.1.2.3", "239.192.152.143"):
        s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton(source))
    passive = 50000
    print("ready", flush=True)
    while True:
        for s in select.select(list(listeners) + list(datagrams), [], [])[0]:
            if s in datagrams:
                data, peer = s.recvfrom(1000)
                s.sendto(data, peer)
                continue
            connection, _ = s.accept()
            connection.settimeout(2)
            try:
                if listeners[s] == FTP:
                    passive += 1
                    with socket.socket() as data:
                        data.bind(("0.0.0.0", passive))
                        data.listen(1)
                        data.settimeout(2)
                        connection.sendall(b"%d" % passive)
                        transfer, _ = data.accept()
                    transfer.sendall(b"x" * 1000)
                    transfer.close()
                else:
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")
            except OSError:
                pass
            connection.close()


# The clients' side. Each prints what a test may check.

def served(source, destination):
    """A connection to a service."""
    assert connect(source, destination, 80), "not served"


def web(source, destination):
    """300 connections to a web server, one after the other."""
    good = sum(connect(source, destination, 8080) is not None for _ in range(300))
    assert good == 300, "%d of 300 connections served" % good


def ten_services(source, destination):
    """A client of ten services of this host."""
    for _ in range(3):
        for port in TCP_SERVICES:
            assert connect(source, destination, port), "port %d" % port


def stale_segments(source, destination):
    """A web server that this host spoke to, after the host forgot its connections."""
    raw = Raw(destination)
    for port in random.sample(range(32768, 61000), 60):
        for flags in (ACK, ACK | PSH, ACK | FIN, RST, RST | ACK, FIN):
            raw.send(tcp(source, 443, destination, port, flags, data=b"late" if flags & PSH else b""))


def stale_clients(source, destination):
    """A client whose connections to five services died with the services."""
    raw = Raw(destination)
    for port in (389, 636, 873, 990, 992):
        for flags in (ACK, ACK | PSH, ACK | FIN, ACK | FIN, RST | ACK):
            raw.send(tcp(source, 45000 + port, destination, port, flags))


def retries(source, destination):
    """A client that tries one closed port again and again."""
    for _ in range(40):
        connect(source, destination, 389, wait=0.02)


def exporters(source, destination, ports=(100, 101)):
    """Monitoring that asks two closed ports every time."""
    for _ in range(5):
        for port in ports:
            connect(source, destination, port, wait=0.05)


def three_exporters(source, destination):
    exporters(source, destination, (100, 101, 102))


def trace(source, destination, base, probes):
    raw = Raw(destination)
    for number in range(probes):
        packet = bytearray(udp(source, random.randint(33000, 65000), destination, base + number, b"SUPERMAN" * 4))
        packet[8] = 1 + number // 3
        raw.send(bytes(packet))


def traceroute(source, destination):
    """traceroute(8): 30 hops of 3 datagrams, a port each."""
    trace(source, destination, 33434, 90)


def tracepath(source, destination):
    """tracepath(8) of iputils: from port 44444 on, 30 hops; it goes on until it gets an answer."""
    trace(source, destination, 44444, 30)


def late_answers(source, destination):
    """Answers of a name server and a time server to sockets that are closed."""
    raw = Raw(destination)
    for service in (53, 123, 443):
        for port in random.sample(range(32768, 61000), 60):
            raw.send(udp(source, service, destination, port))
    # A recursive resolver chooses its ports among all that are not privileged.
    for port in random.sample(range(1024, 65536), 60):
        raw.send(udp(source, 53, destination, port))


def ftp(source, destination):
    """FTP in passive mode: a new port for each of 20 files; the last segments come after the end."""
    for _ in range(20):
        with socket.socket() as control:
            control.settimeout(2)
            control.bind((source, 0))
            control.connect((destination, FTP))
            port = int(control.recv(100))
            with socket.socket() as data:
                data.settimeout(2)
                data.bind((source, 0))
                data.connect((destination, port))
                size = 0
                while chunk := data.recv(4096):
                    size += len(chunk)
                assert size == 1000, size
    # And its last segments again, which got lost on the way the first time.
    raw = Raw(destination)
    for flags in (ACK, FIN | ACK):
        for port in range(50001, 50021):
            raw.send(tcp(source, 40000, destination, port, flags))


def discovery(source, destination):
    """mDNS, SSDP, LLMNR, DHCP, routing protocols and others: multicast and broadcast."""
    raw = Raw(destination)
    # No route leads to a group.
    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"net0")
    directed = destination.rsplit(".", 1)[0].rsplit(".", 1)[0] + ".255.255"
    for _ in range(3):
        for group, port in (("224.0.0.251", 5353), ("239.255.255.250", 1900), ("224.0.0.252", 5355), ("239.255.255.250", 3702), ("224.0.0.1", 161),
                            ("224.0.0.2", 1985), ("239.1.2.3", 5004), ("239.192.152.143", 6771)):
            raw.send(udp(source, port, group, port))
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six:
            six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("net0"))
            for group, port in (("ff02::fb", 5353), ("ff02::c", 1900), ("ff02::1:3", 5355), ("ff02::1:2", 547), ("ff02::1", 161)):
                six.sendto(b"who is there", (group, port))
        for address in (directed, "255.255.255.255"):
            for port in (67, 68, 69, 137, 138, 161, 631, 1900, 5678, 9, 7, 32412, 57621):
                raw.send(udp(source, port, address, port))


def backscatter(source, destination):
    """Answers of a server that is flooded in this host's name."""
    raw = Raw(destination)
    for port in random.sample(range(1, 65536), 300):
        for flags in (SYN | ACK, RST, RST | ACK):
            raw.send(tcp(source, 80, destination, port, flags))
        quoted = tcp(destination, port, source, 80, SYN)[:28]
        for kind, code in ((3, 1), (3, 3), (3, 13), (11, 0)):
            raw.send(icmp(source, destination, kind, code, quoted))


def impatient(source, destination):
    """A client of five services that are restarting."""
    for _ in range(3):
        for port in (80, 443, 25, 143, 8080):
            connect(source, destination, port, wait=0.05)


def redirected(source, destination):
    """Connections to ports that destination NAT leads to services."""
    for _ in range(20):
        for port in (18080, 18443, 18025, 18143):
            assert connect(source, destination, port), "port %d" % port


def pings(source, destination):
    """Echo requests, other ICMP messages, and port unreachables about datagrams that were not sent."""
    raw = Raw(destination)
    for number in range(50):
        raw.send(icmp(source, destination, 8, 0, b"ping" * 10))
    for kind, code, body in ((13, 0, bytes(12)), (17, 0, bytes(4)), (0, 0, b"answer"), (9, 0, bytes(8)), (10, 0, b"")):
        raw.send(icmp(source, destination, kind, code, body))
    for port in range(1, 60):
        quoted = udp(destination, 33000 + port, source, port)[:28]
        raw.send(icmp(source, destination, 3, 3, quoted))


def answers(source, destination):
    """What a host whose address is forged answers: resets and SYN-ACKs to the ports that argv names, and echo replies."""
    raw = Raw(destination)
    for port in map(int, sys.argv[4:]):
        for flags in (RST, RST | ACK, SYN | ACK):
            raw.send(tcp(source, 40000, destination, port, flags))
    raw.send(icmp(source, destination, 0, 0, b"answer"))


def peers(source, destination):
    """A peer-to-peer program has ended; its peers do not know yet."""
    raw = Raw(destination)
    network = source.rsplit(".", 1)[0]
    for _ in range(5):
        for peer in range(10, 90):
            address = "%s.%d" % (network, peer)
            raw.send(udp(address, 6881, destination, 51413))
            raw.send(tcp(address, 40000 + peer, destination, 51413, SYN))
            raw.send(tcp(address, 41000 + peer, destination, 51413, ACK | PSH, data=b"piece"))


def late_server(source, _destination):
    """Answers each datagram to port 53 when nobody waits any more, and refuses or cuts off each connection."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((source, 53))
    cutter = socket.socket()
    cutter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    cutter.bind((source, 8443))
    cutter.listen(64)
    print("ready", flush=True)
    due = []
    while True:
        wait = max(0, due[0][0] - time.monotonic()) if due else None
        for ready in select.select([s, cutter], [], [], wait)[0]:
            if ready is s:
                due.append((time.monotonic() + 0.3, *s.recvfrom(1000)))
            else:
                connection, _ = cutter.accept()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
        while due and due[0][0] <= time.monotonic():
            _, data, peer = due.pop(0)
            s.sendto(data, peer)


def outgoing(source, destination):
    """The host's own connections: refused, cut off, answered late, given up; DESTINATION runs late_server."""
    for port in range(100, 130):
        connect(source, destination, port, wait=0.2)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind((source, 0))
            s.sendto(b"question", (destination, port))
    for _ in range(30):
        connect(source, destination, 8443, wait=0.5)
    for _ in range(40):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind((source, 0))
            s.sendto(b"question", (destination, 53))
    time.sleep(0.6)


# Sockets that are on their way out. SOURCE is the host, DESTINATION the client.

def sockets(source, destination):
    """Leaves a socket in TIME_WAIT on port 700, one in FIN_WAIT2 on 701, and a listener with a full queue on 702."""
    kept = []
    for port in (700, 701):
        s = socket.socket()
        s.bind((source, port))
        s.connect((destination, 9000))
        kept.append(s)
    kept[0].sendall(b"bye")
    kept[0].shutdown(socket.SHUT_WR)
    assert kept[0].recv(10) == b""
    kept[0].close()
    kept[1].shutdown(socket.SHUT_WR)
    full = socket.socket()
    full.bind((source, 702))
    full.listen(0)
    print("ready", flush=True)
    time.sleep(60)


def sink(source, _destination):
    """The other end of them: closes the connection that says bye, and holds the other open."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((source, 9000))
    listener.listen(5)
    print("ready", flush=True)
    kept = []
    for _ in range(2):
        s, _ = listener.accept()
        kept.append(s)
    # To the end, so that the other side is the first to close: it is the one that waits in TIME_WAIT.
    while kept[0].recv(10):
        pass
    kept[0].close()
    time.sleep(60)


def segments(source, destination):
    """Segments from port 9000, as argv says: PORT FLAGS."""
    raw = Raw(destination)
    raw.send(tcp(source, int(sys.argv[6]), destination, int(sys.argv[4]), int(sys.argv[5])))


def half_open(source, destination):
    """20,000 SYNs from as many addresses of SOURCE/16, each to another port; nobody answers what comes back."""
    raw = Raw(destination)
    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    network = ".".join(source.split(".")[:2])
    for number in range(20000):
        forged = "%s.%d.%d" % (network, number >> 8, number & 255)
        raw.send(tcp(forged, 1024 + number, destination, 10000 + number, SYN))


def fill(source, destination):
    """Five connections to a listener that takes none: its queue is full from the second on."""
    kept = []
    for _ in range(5):
        s = socket.socket()
        s.setblocking(False)
        s.bind((source, 0))
        s.connect_ex((destination, 702))
        kept.append(s)
    # The kernel repeats the SYNs of those that found no place.
    time.sleep(1.3)


# Attacks that nmap does not make, for tests/kernel/predecessor.rs and tests/kernel/defects.rs.

def knock(source, destination):
    """Real connections, one after the other, to the ports that argv names."""
    for port in map(int, sys.argv[4:]):
        connect(source, destination, port, wait=0.5)


def knock_fast(source, destination):
    """The same without patience: the first SYN of each connection."""
    for port in map(int, sys.argv[4:]):
        connect(source, destination, port, wait=0.01)


def patient(source, destination):
    """A client that tries all ports from argv[5] on side by side, argv[4] times, each for as long as two retransmissions take."""
    for _ in range(int(sys.argv[4])):
        tries = []
        for port in map(int, sys.argv[5:]):
            one = socket.socket()
            one.setblocking(False)
            one.bind((source, 0))
            one.connect_ex((destination, port))
            tries.append(one)
        time.sleep(3.5)
        for one in tries:
            one.close()


def datagrams(source, destination):
    """A datagram to each port that argv names."""
    for port in map(int, sys.argv[4:]):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind((source, 0))
            s.sendto(b"hello", (destination, port))


def noise(source, destination):
    """What ended connections leave behind: resets to all ports that argv names, acknowledgements to the first five."""
    raw = Raw(destination)
    ports = list(map(int, sys.argv[4:]))
    for port in ports:
        for flags in (RST, RST | ACK, SYN | ACK):
            raw.send(tcp(source, 443, destination, port, flags))
    for port in ports[:5]:
        for flags in (ACK, ACK | PSH):
            raw.send(tcp(source, 443, destination, port, flags, data=b"late" if flags & PSH else b""))


def syns_six(source, destination, ports, first_header=6, headers=b""):
    inet = lambda address: socket.inet_pton(socket.AF_INET6, address)
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for port in ports:
            segment = struct.pack("!HHIIBBHHH", 40000, port, random.getrandbits(32), 0, 5 << 4, SYN, 512, 0, 0)
            check = checksum(inet(source) + inet(destination) + struct.pack("!IHBB", len(segment), 0, 0, 6) + segment)
            payload = headers + segment[:16] + struct.pack("!H", check) + segment[18:]
            fixed = struct.pack("!IHBB", 6 << 28, len(payload), first_header, 64) + inet(source) + inet(destination)
            raw.sendto(fixed + payload, (destination, 0))


def sources(_device, destination):
    """A SYN in the name of each source to its port, as argv has them: SOURCE,PORT."""
    raw = None if ":" in destination else Raw(destination)
    for number, word in enumerate(sys.argv[4:]):
        source, port = word.split(",")
        if raw is None:
            syns_six(source, destination, [int(port)])
        else:
            raw.send(tcp(source, 40000 + number % 20000, destination, int(port), SYN))
        # Fewer than a receive buffer's worth at a time.
        if number % 100 == 99:
            time.sleep(0.02)


def options_six(source, destination):
    """SYNs over IPv6 behind a hop-by-hop and a destination options header, to the ports that argv names."""
    # Next header, length in eight bytes beyond the first eight, PadN of four.
    headers = struct.pack("!BBBB4x", 60, 0, 1, 4) + struct.pack("!BBBB4x", 6, 0, 1, 4)
    syns_six(source, destination, map(int, sys.argv[4:]), 0, headers)


def blind_six(source, destination):
    """SYNs over IPv6 to the ports argv[4] to argv[5], whose answers are ignored."""
    syns_six(source, destination, range(int(sys.argv[4]), int(sys.argv[5]) + 1))


def connect_all(destination, make):
    """Connections to the ports argv[4] to argv[5] in random order, argv[6] a second, given up after argv[7] s, each from a socket that make
    returns for its number; prints how many ports took one."""
    first, last, rate = map(int, sys.argv[4:7])
    ports = random.sample(range(first, last + 1), last - first + 1)
    poll, waiting, taken = select.poll(), {}, 0
    begun = time.monotonic()
    end = begun + len(ports) / rate + float(sys.argv[7])
    while (now := time.monotonic()) < end:
        while ports and now >= begun + len(waiting) / rate:
            s = make(len(waiting) + 1)
            s.setblocking(False)
            s.connect_ex((destination, ports.pop()))
            waiting[s.fileno()] = s
            poll.register(s, select.POLLOUT)
        for number, _ in poll.poll(5):
            poll.unregister(number)
            taken += waiting[number].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    print(taken)


def rotate_six(source, destination):
    """connect_all with another address of SOURCE/64 for each connection."""
    def make(number):
        s = socket.socket(socket.AF_INET6)
        s.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND
        s.bind(("%s%x" % (source, number), 0))
        return s

    connect_all(destination, make)


def connects(source, destination):
    """connect_all over IPv4 from one address."""
    def make(_number):
        s = socket.socket()
        s.bind((source, 0))
        return s

    connect_all(destination, make)


def sequence(source, destination):
    """SYNs to the ports argv[4] to argv[5] in turn, at argv[6] a second, argv[7] of them or one each; prints how many ports answered: by a reset, and
    by a SYN-ACK."""
    first, last, rate = map(int, sys.argv[4:7])
    ports = range(first, last + 1)
    count = int(sys.argv[7]) if len(sys.argv) > 7 else len(ports)
    once = [tcp(source, 40000, destination, port, SYN) for port in ports]
    packets = (once * (count // len(once) + 1))[:count]
    raw = Raw(destination)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as ear:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        ear.bind((source, 0))
        ear.setblocking(False)
        begun = time.perf_counter()
        for number, packet in enumerate(packets):
            while time.perf_counter() < begun + number / rate:
                pass
            raw.send(packet)
        resets, taken = set(), set()
        until = time.perf_counter() + 0.5
        while (left := until - time.perf_counter()) > 0 and select.select([ear], [], [], left)[0]:
            data = ear.recv(200)
            port, flags = struct.unpack("!H", data[20:22])[0], data[33]
            if flags & SYN:
                taken.add(port)
            elif flags & RST:
                resets.add(port)
    print(len(resets - taken), len(taken))


def blind(source, destination):
    """SYNs to the ports argv[4] to argv[5] in the names of argv[6] hosts from SOURCE on, each argv[7] times; nobody looks at the answers."""
    first, last, hosts, times = map(int, sys.argv[4:8])
    base = struct.unpack("!I", socket.inet_aton(source))[0]
    raw = Raw(destination)
    for _ in range(times):
        for host in range(hosts):
            name = socket.inet_ntoa(struct.pack("!I", base + host))
            for port in range(first, last + 1):
                raw.send(tcp(name, 40000 + host % 20000, destination, port, SYN, seq=port))


def twice(source, destination):
    """The same SYN to port argv[4] twice, 1.2 s apart, with the IP id argv[5]; prints how many SYN-ACKs came back."""
    port, number = int(sys.argv[4]), int(sys.argv[5])
    packet = tcp(source, 41000 + number % 1000, destination, port, SYN, seq=number)
    packet = packet[:4] + struct.pack("!H", number) + packet[6:]
    raw = Raw(destination)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as ear:
        ear.bind((source, 0))
        raw.send(packet)
        time.sleep(1.2)
        raw.send(packet)
        answers, until = 0, time.monotonic() + 0.5
        while (left := until - time.monotonic()) > 0 and select.select([ear], [], [], left)[0]:
            data = ear.recv(200)
            answers += struct.unpack("!HH", data[20:24]) == (port, 41000 + number % 1000) and data[33] & (SYN | ACK) == SYN | ACK
    print(int(answers > 0))


def replies(source, destination):
    """What services send late: an NFS server's FIN+ACKs to clients' reserved ports, four times each; answers of DNS, NTP, SSDP and memcached
    that nobody waits for; mtr --udp."""
    raw = Raw(destination)
    for _ in range(4):
        for port in range(700, 740):
            raw.send(tcp(source, 2049, destination, port, FIN | ACK))
        for port in range(20, 30):
            raw.send(tcp(source, 443, destination, port, ACK))
        for port in range(300, 310):
            for service in (53, 123, 1900, 11211):
                raw.send(udp(source, service, destination, port))
        for port in range(33000, 33030):
            raw.send(udp(source, 40000, destination, port))


def clients(source, destination):
    """An honest host: an established connection to port argv[4] on which a byte goes there and back every 0.1 s, and a new one every
    argv[5] s, for argv[6] s; prints how many failed, and the longest a connection and a byte took."""
    port, every, last = int(sys.argv[4]), float(sys.argv[5]), float(sys.argv[6])
    begun = time.monotonic()
    old = socket.create_connection((destination, port), 5, source_address=(source, 0))
    old.settimeout(10)
    failed, slowest, stalled, due = 0, 0.0, 0.0, begun
    while time.monotonic() < begun + last:
        at = time.monotonic()
        old.sendall(b"x")
        if old.recv(1) != b"x":
            failed += 1
        stalled = max(stalled, time.monotonic() - at)
        if time.monotonic() >= due:
            due = time.monotonic() + every
            at = time.monotonic()
            try:
                with socket.create_connection((destination, port), 5, source_address=(source, 0)) as new:
                    new.settimeout(5)
                    new.sendall(b"y")
                    failed += new.recv(1) != b"y"
            except OSError:
                failed += 1
            slowest = max(slowest, time.monotonic() - at)
        time.sleep(0.1)
    print(failed, round(slowest, 3), round(stalled, 3))


def exchanges(source, destination):
    """Good connections to port argv[4], argv[5] of them, each ended by the client."""
    for _ in range(int(sys.argv[5])):
        with socket.create_connection((destination, int(sys.argv[4])), 5, source_address=(source, 0)) as s:
            s.sendall(b"x")
            assert s.recv(1) == b"x"


def outage(source, destination):
    """An honest host: a byte goes there and back every 0.1 s on an established connection to port argv[4], and a new connection is tried
    every argv[5] s, for argv[6] s; prints from when to when tries failed, and the longest a byte took, seconds."""
    import threading

    port, every, last = int(sys.argv[4]), float(sys.argv[5]), float(sys.argv[6])
    begun = time.monotonic()
    stalled = 0.0

    def talk():
        nonlocal stalled
        with socket.create_connection((destination, port), 5, source_address=(source, 0)) as old:
            old.settimeout(5)
            while time.monotonic() < begun + last:
                at = time.monotonic()
                try:
                    old.sendall(b"x")
                    old.recv(1)
                except OSError:
                    pass
                stalled = max(stalled, time.monotonic() - at)
                time.sleep(0.1)

    talker = threading.Thread(target=talk)
    talker.start()
    since, longest = None, 0.0
    while (at := time.monotonic()) < begun + last:
        try:
            with socket.create_connection((destination, port), every, source_address=(source, 0)) as new:
                new.settimeout(5)
                new.sendall(b"y")
                new.recv(1)
            since = None
        except OSError:
            since = since or at
            longest = max(longest, time.monotonic() - since)
        time.sleep(max(0, at + every - time.monotonic()))
    talker.join()
    print(round(longest, 3), round(stalled, 3))


def echo(source, _destination):
    """A service on the ports that argv names: what it gets, it gives back, until it is killed."""
    import threading

    def talk(peer):
        while data := peer.recv(100):
            peer.sendall(data)

    listeners = []
    for port in sys.argv[4:]:
        family = socket.AF_INET6 if ":" in source else socket.AF_INET
        listeners.append(socket.create_server((source, int(port)), family=family, backlog=100))
    print("ready", flush=True)
    while True:
        for ready in select.select(listeners, [], [])[0]:
            threading.Thread(target=talk, args=(ready.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    random.seed(1)
    globals()[sys.argv[1]](sys.argv[2], sys.argv[3])
    sys.stdout.flush()
    os._exit(0)
