"""Processes: supervision of servers, signals, sockets, and metrics of several processes."""
