"""Exported programs: `.pt2` files of torch.export, read without running anything of theirs."""
