"""The batching engine. It knows neither torch nor HTTP; `service.serving` opens the models."""
