"""From flags to the processes of a mesh."""
