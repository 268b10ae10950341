"""The batching engine. Knows neither torch nor HTTP; `manager` alone loads models."""
