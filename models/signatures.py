"""What a file is by its first bytes, in words for messages."""

from __future__ import annotations

PARQUET, ZIP, UTF_16 = "a Parquet file", "a ZIP archive", "UTF-16 text"
RAR, SEVEN_ZIP = b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c"
# The mark of a tar archive is the last to end.
START_BYTES = 512
_TAR, _TAR_AT = (b"ustar\0", b"ustar  \0"), 257
_SIGNATURES = {
    b"PK\x03\x04": ZIP,
    b"PK\x05\x06": ZIP,
    RAR: "a RAR archive",
    SEVEN_ZIP: "a 7z archive",
    b"PAR1": PARQUET,
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\x00": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstandard file",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF",
    b"SQLite format 3": "an SQLite database",
    b"ARROW1": "an Arrow file",
    b"\xff\xfe": UTF_16,
    b"\xfe\xff": UTF_16,
} | {b"\x80" + bytes([protocol]): "a pickle, which is never opened" for protocol in range(2, 6)}


def content_of(start: bytes) -> str | None:
    """What the first `START_BYTES` of a file, or all of a shorter one, say that it is; None for what is not known."""
    if start.startswith(_TAR, _TAR_AT):
        return "a tar archive"
    return next((name for signature, name in _SIGNATURES.items() if start.startswith(signature)), None)
