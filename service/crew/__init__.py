"""Several processes of the service behind one port: `sonde serve --workers N`."""
