"""`sonde bench`: a load generator for servers with OpenAI's embeddings route or the Open Inference Protocol.

In the order of a run: `flags` and `command`; `arrivals` (when to send), `workload` and `tensor_workload` (what to
send); `load` (open, closed), on `client` and `rpc_client` (a connection). `summary` has the statistics and `report` the
JSON, table and page. `generator_ceiling` measures the generator itself.
"""
