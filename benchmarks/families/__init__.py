"""A bench of generated plants in families, to choose sensor detectors that hold on machines not seen before."""
