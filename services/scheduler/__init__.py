"""One replica's queue, prefix cache and batches; never touches a tensor."""
