"""The batching engine, without torch and HTTP. `service.serving` opens the models."""
