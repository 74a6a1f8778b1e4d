"""Content hashes: what an artefact was made from, and whether a file is still what was written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

CHECKSUM = "checksum"
"""Key under which a file of ours keeps a hash of its own content."""


def hash_json(content: Any) -> str:
    """Hash of JSON-able ``content``; the order of keys does not matter. 16 hexadecimal digits."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def hash_files(files: list[Path]) -> str:
    """Hash of the bytes of ``files`` in order, with bounded memory. 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        one = hashlib.blake2b()  # of its own, so that bytes cannot move from the end of one file to the next
        with file.open("rb") as handle:
            while block := handle.read(1 << 20):
                one.update(block)
        digest.update(one.digest())
    return digest.hexdigest()
