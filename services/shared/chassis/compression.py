"""Compressed request bodies (RFC 9110, section 8.4): unpacked within a bound, so that a small body cannot become a large one."""

from __future__ import annotations

import zlib

import brotli

from services.shared.contracts.errors import InvalidRequest, RequestTooLarge


def unpacked(body: bytes, encodings: str, limit: int) -> bytes:
    """`body` without the `encodings` of its Content-Encoding header, which were applied from left to right.

    Raises:
        InvalidRequest: an encoding that is not known here, or a body that is not in it.
        RequestTooLarge: more than `limit` bytes come out.
    """
    for encoding in reversed([name.strip().lower() for name in encodings.split(",") if name.strip()]):
        try:
            body = _unpacked(body, encoding, limit)
        except (zlib.error, brotli.error) as error:
            raise InvalidRequest(f"the body is not {encoding}, as its content-encoding says: {error}") from error
    return body


def _unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    match encoding:
        case "identity":
            return body
        case "gzip" | "x-gzip":
            return _inflated(body, zlib.MAX_WBITS | 16, limit)
        case "deflate":
            return _inflated(body, zlib.MAX_WBITS, limit)
        case "br":
            return _unbrotli(body, limit)
        case _:
            raise InvalidRequest(f"content-encoding {encoding!r} is not known here; gzip, deflate and br are")


def _inflated(body: bytes, wbits: int, limit: int) -> bytes:
    stream = zlib.decompressobj(wbits)
    found = stream.decompress(body, limit + 1)
    if len(found) > limit:
        raise _too_large(limit)
    if not stream.eof:
        raise zlib.error("it ends early")
    return found


def _unbrotli(body: bytes, limit: int) -> bytes:
    stream = brotli.Decompressor()
    found = stream.process(body, output_buffer_limit=limit + 1)
    if len(found) > limit:
        raise _too_large(limit)
    if not stream.is_finished():
        raise brotli.error("it ends early")
    return bytes(found)


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"the body unpacks to more than {limit} bytes (setting max_body_bytes)")
