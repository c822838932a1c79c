"""Looks for secrets in files, in every form in which a program is likely to write one."""

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote


def forms(secret: str) -> dict[str, bytes]:
    """The secret as it is, in Base64 wherever it stands there, hexadecimal, percent-encoded, escaped in JSON."""
    raw = secret.encode()
    found = {
        "plain": raw,
        "hexadecimal": raw.hex().encode(),
        "upper-case hexadecimal": raw.hex().upper().encode(),
        "percent-encoded": quote(secret, safe="").encode(),
        "percent-encoded throughout": "".join(f"%{byte:02X}" for byte in raw).encode(),
        "JSON": json.dumps(secret)[1:-1].encode(),
        "escaped JSON": "".join(f"\\u{byte:04x}" for byte in raw).encode(),
        "reversed": raw[::-1],
    }
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw)
        # The digits at the ends hold bits of what stands beside it.
        inner = encoded[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]
        found[f"Base64, {shift} bytes on"] = inner
        found[f"Base64 for URLs, {shift} bytes on"] = inner.translate(bytes.maketrans(b"+/", b"-_"))
    return found


def occurrences(secrets: dict[str, str], files: Iterable[Path]) -> Iterator[str]:
    """Which secret stands where, and how."""
    needles = [(name, form, needle) for name, value in secrets.items() for form, needle in forms(value).items()]
    for file in files:
        content = file.read_bytes()
        for name, form, needle in needles:
            if needle in content:
                yield f"{name} ({form}) in {file.name}"
