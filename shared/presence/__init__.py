"""Who is in the mesh: what a service knows of the others, and how it tells of itself."""
