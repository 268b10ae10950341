"""Tiny random models of images, made by the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    CLIPConfig,
    ConvNextConfig,
    Dinov2Config,
    ResNetConfig,
    SiglipConfig,
    ViTConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from tests.support.tiny_models import tokenizer

ImageArchitecture = Literal["vit", "convnext", "resnet", "dinov2"]
LABELS = ("cat", "dog", "tile")
SIDE = 32
_VIT = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": SIDE, "patch_size": 8}
_SMALL = {"height": SIDE, "width": SIDE}


def image_config(architecture: ImageArchitecture, **more: Any) -> Any:
    """A few small layers, with weights that give different images different answers."""
    if architecture == "vit":
        return ViTConfig(**_VIT, intermediate_size=64, initializer_range=0.3, **more)
    if architecture == "dinov2":
        return Dinov2Config(**_VIT, initializer_range=0.3, **more)
    stages = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
    if architecture == "convnext":
        return ConvNextConfig(**stages, initializer_range=0.3, **more)
    return ResNetConfig(embedding_size=8, **stages, **more)


def processor(architecture: str) -> Any:
    """An image processor of a family, for images of 32 x 32."""
    if architecture == "convnext":
        return ConvNextImageProcessorPil(size={"shortest_edge": SIDE})
    if architecture == "clip":
        return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=_SMALL)
    return (SiglipImageProcessorPil if architecture == "siglip" else ViTImageProcessorPil)(size=_SMALL)


def image_classifier(path: Path, architecture: ImageArchitecture = "vit", **more: Any) -> Path:
    """A `…ForImageClassification` directory."""
    torch.manual_seed(0)
    names = dict(enumerate(LABELS))
    labels = {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    config = image_config(architecture, **labels, **more)
    AutoModelForImageClassification.from_config(config).save_pretrained(path)
    processor(architecture).save_pretrained(path)
    return path


def image_encoder(path: Path, architecture: ImageArchitecture = "dinov2") -> Path:
    """A directory with the body alone."""
    torch.manual_seed(0)
    AutoModel.from_config(image_config(architecture)).save_pretrained(path)
    processor(architecture).save_pretrained(path)
    return path


def text_image_encoder(path: Path, architecture: Literal["clip", "siglip"] = "clip") -> Path:
    """A CLIP or SigLIP directory."""
    torch.manual_seed(0)
    words = tokenizer()
    tower = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    ends = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    texts = {**tower, **ends, "vocab_size": len(words), "max_position_embeddings": 24, "projection_dim": 16}
    images = {**tower, "image_size": SIDE, "patch_size": 8, "projection_dim": 16}
    if architecture == "siglip":
        texts |= {"projection_size": 32}
        config: Any = SiglipConfig(text_config=texts, vision_config=images)
    else:
        config = CLIPConfig(text_config=texts, vision_config=images, projection_dim=16)
    network = AutoModel.from_config(config)
    for weight in network.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.2)
    network.save_pretrained(path)
    words.save_pretrained(path)
    processor(architecture).save_pretrained(path)
    return path
