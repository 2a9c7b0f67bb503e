"""What every service shares: the bus, the contract, presence, telemetry, settings and errors.

Nothing here imports a service.
"""
