"""`sonde bench`: a load generator for any server with OpenAI's embeddings route.

In the order of a run: `flags`, `command`, `arrivals` (when to send), `workload` (what to send), `load` (open, closed),
`client` (a connection), `summary` (statistics), `report` (JSON, table, page). `ceiling` measures the generator itself.
"""
