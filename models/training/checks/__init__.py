"""The debug ladder: data, forward, loss, gradient, outcome, in this order; the first rung that fails is where to look.

Each rung has a module of its own; here are the names that recipes use.
"""
