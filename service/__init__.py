"""The microservice around the models: HTTP, batching, jobs."""
