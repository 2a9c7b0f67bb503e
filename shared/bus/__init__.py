"""A connection to NATS that speaks in messages."""
