"""`sonde bench`: a load generator for Sonde and any other server that speaks OpenAI's embeddings.

Its pieces from first to last: `arrivals` (when to send), `lengths` and `texts` (what), `requests` (as bytes),
`client` (one connection), `loops` (open and closed load), `measure` (what the samples say), `table`, `page` and
`record` (how it is shown), `ceiling` (how fast the generator itself is), `flags` and `command` (from flags to all
that).
"""
