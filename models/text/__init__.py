"""Models that read texts: tokenization, encoders, classifiers, heads."""
