"""Fingerprints: what a result depends on, as one short text that is equal when nothing changed."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel


def fingerprint(**parts: Any) -> str:  # noqa: ANN401 - anything that JSON can hold
    """The first 32 hexadecimal digits of the SHA-256 of the parts as canonical JSON.

    Pydantic records count as their JSON form. The order of keys does not matter, the order of
    list items does.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_as_json)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _as_json(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    msg = f"cannot take the fingerprint of a {type(value).__name__}"
    raise TypeError(msg)
