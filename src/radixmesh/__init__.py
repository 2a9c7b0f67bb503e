"""A server for large language models, built as a mesh of asyncio services over NATS."""

__version__ = "0.1.0"
"""The one place where it stands: the package's metadata and what the services say of themselves are read from here."""
