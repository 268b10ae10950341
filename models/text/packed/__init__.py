"""A forward pass without padding for BERT-like encoders, checked against the general one."""
