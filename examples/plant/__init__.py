"""A plant of three pumps, whose data logger writes CSV files as such devices do."""
