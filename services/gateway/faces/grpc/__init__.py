"""The gRPC face of the gateway: the `radixmesh.v1.RadixMesh` service, health and reflection."""
