"""A small network over HTTP and gRPC: Sonde beside MLServer and LitServe."""
