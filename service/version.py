"""Sonde's version, read once: what is read to find it takes memory of each process that is forked later."""

from importlib.metadata import version

VERSION = version("sonde")
