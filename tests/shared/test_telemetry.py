"""Tracing as the environment asks for it, rightly or wrongly."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.processes

COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}

SETUP = """
from radixmesh.shared import telemetry
telemetry.setup_logging("scheduler", "r0", "info", "text")
telemetry.setup("scheduler", "r0")
print(telemetry.enabled)
"""


def set_up(environ: dict[str, str], code: str = SETUP) -> tuple[bool, list[str]]:
    """Whether traces are sent, and the lines that were logged."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environ}, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip() == "True", done.stderr.splitlines()


@pytest.mark.parametrize("environ", [{}, {"OTEL_TRACES_EXPORTER": "otlp"}, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}])
def test_traces_are_sent_where_there_is_a_collector(environ: dict[str, str]) -> None:
    assert set_up(COLLECTOR | environ) == (True, [])
    assert set_up(environ) == (False, [])


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"},
        {"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "10s"},
        {"OTEL_EXPORTER_OTLP_COMPRESSION": "lzma"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "authorization"},
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"},
        {"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "-1"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "1"},
        {"OTEL_BSP_SCHEDULE_DELAY": "-5"},
    ],
    ids=str,
)
def test_a_variable_that_cannot_be_followed_costs_the_traces_and_one_line(environ: dict[str, str]) -> None:
    enabled, (line,) = set_up(COLLECTOR | environ)
    assert not enabled
    assert "no traces are sent: " in line
    assert list(environ)[-1] in line


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_BSP_MAX_QUEUE_SIZE": "many"},
        {"OTEL_TRACES_SAMPLER": "dice"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "half"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://127.0.0.1:9", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/none"},
    ],
    ids=str,
)
def test_what_the_sdk_puts_right_by_itself_is_one_line_and_no_traceback(environ: dict[str, str]) -> None:
    enabled, lines = set_up(COLLECTOR | environ)
    assert enabled
    assert len(lines) == 1


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer hunter2%0A"},
        {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "hunter2"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=hunter2\nx"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:hunter2@[x"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:hunter2@127.0.0.1:nine"},
    ],
    ids=str,
)
def test_no_secret_is_told(environ: dict[str, str]) -> None:
    assert "hunter2" not in "\n".join(set_up(COLLECTOR | environ)[1])


def test_no_secret_is_told_by_the_sdk_either() -> None:
    code = (
        SETUP
        + """
import logging
logger = logging.getLogger("opentelemetry.exporter")
try:
    raise ValueError("metadata was invalid: [('authorization', 'hunter2')]")
except ValueError:
    logger.exception("Exception while exporting to http://me:hunter2@collector")
"""
    )
    _, (line,) = set_up(COLLECTOR | {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=hunter2"}, code)
    assert line.endswith("http://***@collector: metadata was invalid: [('authorization', '***')]")
