"""What the standard ``OTEL_*`` variables may ask for, and words for what is wrong with them, without their secrets."""

import logging
import os
import re
from collections.abc import Mapping
from urllib.parse import unquote

_HEADER_VARIABLES = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
_HEADER_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]*@")
_SECRET_CHARS = 4
"""Shorter parts of a header are words like any other."""


def require_supported(environ: Mapping[str, str]) -> None:
    """Raises ValueError, naming the variable, for what we do not speak and for headers that cannot be sent."""
    exporters = {name.strip().lower() for name in environ.get("OTEL_TRACES_EXPORTER", "").split(",")} - {""}
    if exporters and "otlp" not in exporters:
        raise ValueError(f"OTEL_TRACES_EXPORTER asks for {', '.join(sorted(exporters))}; there is only otlp")
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := environ.get(name, "").strip().lower():
            if protocol != "grpc":
                raise ValueError(f"{name} asks for {protocol}; there is only grpc")
            break  # the one for traces goes before the general one
    for name in _HEADER_VARIABLES:
        if not all(_can_be_sent(header) for header in environ.get(name, "").split(",")):
            raise ValueError(f"{name} does not read like NAME=VALUE,NAME=VALUE with URL-encoded values")


def blame(error: Exception, environ: Mapping[str, str]) -> str:
    """One line about an error of the SDK: the variables whose values it quotes, or else all that are set."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "OTEL_" in text:  # it names the variable itself
        return without_secrets(text, environ)
    given = {name: value for name, value in environ.items() if name.startswith("OTEL_") and value}
    quoted = [name for name, value in given.items() if repr(value.strip()) in text or value == text]
    return f"{', '.join(quoted or given)}: {without_secrets(text, environ)}"


def without_secrets(text: str, environ: Mapping[str, str]) -> str:
    """`text` without the headers' values and the credentials of a URL."""
    for name in _HEADER_VARIABLES:
        for header in environ.get(name, "").split(","):
            secret = header.partition("=")[2].strip() or header.strip()
            for word in (secret, unquote(secret).strip()):
                text = text.replace(word, "***") if len(word) >= _SECRET_CHARS else text
    return _CREDENTIALS.sub("***@", text)


def one_line(record: logging.LogRecord) -> bool:
    """A filter for log handlers: what the SDK logs becomes one line without secrets, in place of a traceback."""
    if record.name.partition(".")[0] == "opentelemetry":
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text.rstrip('. ')}: {record.exc_info[1]}"
        record.msg, record.args = without_secrets(" ".join(text.split()), os.environ), ()
        record.exc_info = record.exc_text = None
    return True


def _can_be_sent(header: str) -> bool:
    if not header.strip():
        return True
    name, equals, value = header.partition("=")
    value = unquote(value.strip())
    return bool(equals and _HEADER_NAME.fullmatch(name.strip())) and value.isascii() and value.isprintable()
