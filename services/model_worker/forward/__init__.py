"""The contract between models and devices."""
