"""All that depends on the device, which chooses how a model is run."""
