"""Sonde's version, read once: what is read to find it takes 1 MB of each process that is forked later."""

from importlib.metadata import version

VERSION = version("sonde")
