#!/usr/bin/env python3
"""`valkey-cli ping` for the stand-in image, whose package has only the server: the exit status is 0 when it answers PONG."""

import socket
import sys

with socket.create_connection(("127.0.0.1", 6379), timeout=4) as server:
    server.sendall(b"PING\r\n")
    answer = server.recv(64)
print(answer.decode().strip())
sys.exit(answer != b"+PONG\r\n")
