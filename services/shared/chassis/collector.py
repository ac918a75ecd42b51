"""The garbage collector of a service: seldom, because requests and calls leave next to no cycles behind."""

from __future__ import annotations

import gc


def collect_seldom() -> None:
    """What is here now stays, and from here on the collector is for what fails. Called once, when everything is imported.

    By default it runs after every 700 new objects, many times in a request, and finds nothing: with 256 requests inside it
    stopped all of them for up to 50 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)
