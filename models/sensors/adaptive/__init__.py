"""The detector of live streams, which learns as it scores."""
