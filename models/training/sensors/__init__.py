"""Selection of detectors, fitting of forecasters, and their plots."""
