"""The checks of a training job, in order: data, forward, loss, gradient and outcome.

A failed check stops the job; the first one that fails is where to look. Each kind has its own modules.
"""
