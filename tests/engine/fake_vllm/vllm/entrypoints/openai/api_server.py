"""Stands in for vLLM's API server: listens on --uds, answers /health, and has an engine core with a worker, by spawn.

What it is told to do wrong it finds in the environment: FAKE_VLLM=exit (ends with an error), FAKE_VLLM=hang (never listens).
"""

import http.server
import multiprocessing
import os
import signal
import socketserver
import sys
import time

from vllm.processes import engine_core


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"vllm:fake 1\n"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

    def address_string(self):
        return "unix"


def main():
    print(f"(APIServer pid={os.getpid()}) WARNING 11-21 04:48:00 [api.py:1] starting", flush=True)
    if os.environ.get("FAKE_VLLM") == "exit":
        raise ValueError("unknown model type")
    multiprocessing.get_context("spawn").Process(target=engine_core).start()
    if os.environ.get("FAKE_VLLM") == "hang":
        # As vLLM does while it loads.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(3600)
    signal.signal(signal.SIGTERM, lambda *_: (print("drained", flush=True), os._exit(0)))
    with socketserver.ThreadingUnixStreamServer(sys.argv[sys.argv.index("--uds") + 1], Health) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
