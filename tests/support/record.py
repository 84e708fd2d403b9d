"""record.py DEVICE FILE: writes all packets of a device to a pcap file, as tcpdump -i DEVICE -w FILE, until SIGTERM."""
import select
import signal
import socket
import struct
import sys
import time

ETH_P_ALL = 3


def main(device, path):
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
    packets.bind((device, ETH_P_ALL))
    over = []
    signal.signal(signal.SIGTERM, lambda *_: over.append(True))
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([packets], [], [], 0.05)
            if not ready:
                if over:
                    return
                continue
            data = packets.recv(262144)
            now = time.time_ns()
            file.write(struct.pack("<IIII", now // 10**9, now % 10**9, len(data), len(data)) + data)


main(*sys.argv[1:])
