"""MiniLM with mean pooling as a module that reads token ids."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim

from models.source import locate

NAME = "all-MiniLM-L6-v2"
LONGEST = 64


class TextEncoder(nn.Module):
    """Token ids int64 [n, length] to embeddings float32 [n, 384]. No token is padding."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import AutoModel

        self.encoder = AutoModel.from_pretrained(locate(NAME).path, dtype=torch.float32, local_files_only=True).eval()

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        """The mean of the last layer's rows."""
        rows: Tensor = self.encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        return {"embedding": rows.mean(dim=1)}


def make() -> tuple[nn.Module, dict[str, Tensor], dict[str, dict[int, Dim]]]:
    """What `sonde export` calls."""
    sizes = {0: Dim("batch", min=1, max=64), 1: Dim("length", min=2, max=LONGEST)}
    return TextEncoder(), {"ids": torch.ones(2, 16, dtype=torch.long)}, {"ids": sizes}
