"""The batching engine. Knows neither torch nor HTTP; `hub` alone loads models."""
