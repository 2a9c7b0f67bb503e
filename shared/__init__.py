"""What every service shares. Nothing here imports a service.

    actor/        the frame of each service
    presence/     who is in the mesh
    bus/          the way between services
    messages/     what travels there; `subjects` has the addresses
    model_files/  what lies in a model directory
    host/         what a process finds on its machine

and beside these rooms `config`, `names`, `errors`, `telemetry` (with `otel`), and `prefix_hash`.
"""
