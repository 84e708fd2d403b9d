"""record.py DEVICE FILE: writes all packets of a device to a pcap file, as tcpdump -i DEVICE -w FILE, until SIGTERM."""
import select
import signal
import socket
import struct
import sys

ETH_P_ALL = 3
# asm-generic/socket.h: the time at which the kernel saw the packet, however late this program gets it.
SO_TIMESTAMPNS = 35


def main(device, path):
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
    packets.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
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
            data, told, _, _ = packets.recvmsg(262144, socket.CMSG_SPACE(16))
            seconds, nanoseconds = struct.unpack("qq", told[0][2])
            file.write(struct.pack("<IIII", seconds, nanoseconds, len(data), len(data)) + data)


main(*sys.argv[1:])
