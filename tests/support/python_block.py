"""Runs a block of Python, which is its argument: `python -c` as a program of ours, which the tests fork."""

import sys

if __name__ == "__main__":
    exec(sys.argv[1], {"__name__": "__main__"})
