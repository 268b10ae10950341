"""Models that read texts: tokenisation, encoders, classifiers, heads."""
