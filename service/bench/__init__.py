"""`sonde bench`: a load generator for servers with OpenAI's embeddings route or the Open Inference Protocol.

In the order of a run: `flags`, `command`, `arrivals` (when to send), `workload` and `tensor_workload` (what to send),
`load` (open, closed), `client` and `rpc_client` (a connection), `summary` (statistics), `report` (JSON, table, page).
`ceiling` measures the generator itself.
"""
