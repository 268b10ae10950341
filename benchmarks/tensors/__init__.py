"""Tensors through a small network over HTTP and gRPC: Sonde, MLServer and LitServe."""
