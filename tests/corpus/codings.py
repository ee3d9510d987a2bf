"""Content codings: how the body of a case is packed on its way."""

import gzip
import zlib


def encode(encoding: str | None, plain: bytes) -> bytes:
    """`plain` in a content coding; those that Python lacks are written without compression."""
    match encoding:
        case None:
            return plain
        case "gzip":
            return gzip.compress(plain, mtime=0)
        case "gzip-members":
            # One member for each event, as a host does that compresses what it flushes.
            return b"".join(gzip.compress(part + b"\n\n", mtime=0) for part in plain.split(b"\n\n") if part)
        case "gzip-flushed":
            packer = zlib.compressobj(wbits=31)
            parts = [part + b"\n\n" for part in plain.split(b"\n\n") if part]
            return b"".join(packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in parts) + packer.flush()
        case "deflate":
            return zlib.compress(plain)
        case "deflate-raw":
            packer = zlib.compressobj(wbits=-15)
            return packer.compress(plain) + packer.flush()
        case "br":
            return stored_brotli(plain)
        case "zstd":
            return stored_zstd(plain)
    raise ValueError(f"no coding {encoding!r}")


def stored_brotli(plain: bytes) -> bytes:
    """RFC 7932: a window of 64 KiB, one uncompressed meta-block, an empty last one."""
    if not 0 < len(plain) <= 1 << 16:
        raise ValueError("one meta-block holds up to 64 KiB")
    # From the lowest bit: WBITS 0, ISLAST 0, MNIBBLES 00, MLEN-1 in 16 bits, ISUNCOMPRESSED 1.
    head = (len(plain) - 1) << 4 | 1 << 20
    return head.to_bytes(3, "little") + plain + b"\x03"


def stored_zstd(plain: bytes) -> bytes:
    """RFC 8878: one frame with its content size, one raw block."""
    if len(plain) >= 1 << 17:
        raise ValueError("one block holds less than 128 KiB")
    block = (len(plain) << 3 | 1).to_bytes(3, "little") + plain
    return b"\x28\xb5\x2f\xfd" + b"\xa0" + len(plain).to_bytes(4, "little") + block
