"""What operators see and do: health, metrics, the mesh, its caches."""
