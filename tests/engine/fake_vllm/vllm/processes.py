"""The stand-in's engine core and its worker, which do nothing, for an hour."""

import multiprocessing
import time


def worker():
    print("(Worker pid=1) INFO 11-21 04:49:00 [worker.py:1] loaded", flush=True)
    time.sleep(3600)


def engine_core():
    multiprocessing.get_context("spawn").Process(target=worker).start()
    time.sleep(3600)
