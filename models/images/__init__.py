"""Models that read images: the reader, the processors and the networks."""
