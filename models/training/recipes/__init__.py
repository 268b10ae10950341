"""One recipe for each task: what a job of that task does, from rows to result.

`models.training.run` chooses the recipe of a job.
"""
