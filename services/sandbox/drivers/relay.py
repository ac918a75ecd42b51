"""Runs inside a sandbox, before its command: 127.0.0.1 of the sandbox's own network leads to the proxy's unix socket.

`python3 -I -S relay.py PORT SOCKET COMMAND…` becomes the command; a child of it carries bytes for as long as the sandbox lives.
It decides nothing: whatever passes it meets the rules at the other end. Only the standard library, of any Python 3.
"""

import os
import socket
import sys
import threading
from contextlib import suppress


def main(port: int, path: str, command: list[str]) -> None:
    """Listens before the command starts, so that its first connection finds somebody."""
    listening = socket.create_server(("127.0.0.1", port))
    if os.fork() == 0:
        # The command's pipes are not ours: while we held them nobody could see that it has closed them.
        nothing = os.open("/dev/null", os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        while True:
            accepted, _ = listening.accept()
            threading.Thread(target=carry, args=(accepted, path), daemon=True).start()
    listening.close()
    os.execvp(command[0], command)


def carry(accepted: socket.socket, path: str) -> None:
    """One connection, both ways, until each side has said all."""
    with accepted, socket.socket(socket.AF_UNIX) as proxy:
        proxy.connect(path)
        back = threading.Thread(target=copy, args=(proxy, accepted), daemon=True)
        back.start()
        copy(accepted, proxy)
        back.join()


def copy(source: socket.socket, target: socket.socket) -> None:
    """Until the end of `source`, which `target` then hears of."""
    try:
        while data := source.recv(64 * 1024):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # One side is gone: so that the other thread does not wait for it for ever, both are.
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
