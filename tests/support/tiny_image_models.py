"""Tiny random models of images, made by the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForObjectDetection,
    CLIPConfig,
    ConvNextConfig,
    DetrConfig,
    Dinov2Config,
    EfficientNetConfig,
    GenerationConfig,
    ResNetConfig,
    RTDetrConfig,
    RTDetrResNetConfig,
    SiglipConfig,
    TrOCRConfig,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    YolosConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil
from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from transformers.models.yolos.image_processing_pil_yolos import YolosImageProcessorPil

from models.images.convolution import Convolution
from models.images.efficientnet_lite import EfficientNetLite0, unfold
from models.images.lite_encoder import WEIGHTS
from models.lite_weights import ARCHITECTURE
from tests.support.tiny_models import tokenizer

ImageArchitecture = Literal["vit", "convnext", "resnet", "dinov2", "efficientnet"]
Detector = Literal["detr", "rt-detr", "yolos"]
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
    if architecture == "efficientnet":
        return EfficientNetConfig(image_size=SIDE, width_coefficient=0.1, depth_coefficient=0.1, hidden_dim=128, **more)
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
    if architecture == "efficientnet":
        return EfficientNetImageProcessorPil(size=_SMALL)
    return (SiglipImageProcessorPil if architecture == "siglip" else ViTImageProcessorPil)(size=_SMALL)


def image_classifier(path: Path, architecture: ImageArchitecture = "vit", **more: Any) -> Path:
    """A `…ForImageClassification` directory."""
    torch.manual_seed(0)
    config = image_config(architecture, **_labels(), **more)
    network = AutoModelForImageClassification.from_config(config)
    if architecture == "efficientnet":
        _fit_statistics(network)
    network.save_pretrained(path)
    processor(architecture).save_pretrained(path)
    return path


def object_detector(path: Path, architecture: Detector = "detr") -> Path:
    """A `…ForObjectDetection` directory. DETR and YOLOS read images of sizes that follow from the sides."""
    torch.manual_seed(0)
    network = AutoModelForObjectDetection.from_config(_detector_config(architecture))
    _spread(network)
    network.save_pretrained(path)
    sides = {"shortest_edge": SIDE, "longest_edge": 2 * SIDE}
    processors = {
        "detr": DetrImageProcessorPil(size=sides),
        "yolos": YolosImageProcessorPil(size=sides),
        "rt-detr": RTDetrImageProcessorPil(size={"height": 2 * SIDE, "width": 2 * SIDE}),
    }
    processors[architecture].save_pretrained(path)
    return path


def _detector_config(architecture: Detector) -> Any:
    """One layer each, seven objects at most."""
    if architecture == "yolos":
        return YolosConfig(
            **{**_VIT, "image_size": [SIDE, SIDE]}, intermediate_size=64, num_detection_tokens=7, **_labels()
        )
    stages = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
    sizes = {
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "d_model": 32,
        "num_queries": 7,
        **_labels(),
    }
    if architecture == "detr":
        backbone = ResNetConfig(**stages, out_features=["stage4"])
        return DetrConfig(use_timm_backbone=False, backbone=None, backbone_config=backbone, **sizes)
    return RTDetrConfig(
        backbone_config=RTDetrResNetConfig(**stages, out_features=["stage2", "stage3", "stage4"]),
        encoder_hidden_dim=32,
        encoder_in_channels=[16, 24, 32],
        decoder_in_channels=[32, 32, 32],
        num_denoising=0,
        **sizes,
    )


def image_encoder(path: Path, architecture: ImageArchitecture = "dinov2") -> Path:
    """A directory with the body alone."""
    torch.manual_seed(0)
    network = AutoModel.from_config(image_config(architecture))
    if architecture == "efficientnet":
        _fit_statistics(network)
    network.save_pretrained(path)
    processor(architecture).save_pretrained(path)
    return path


def lite_encoder(path: Path) -> Path:
    """EfficientNet-Lite0 for images of 32 x 32: its weights are random, its layers as large as ever."""
    torch.manual_seed(0)
    network = EfficientNetLite0()
    for convolution in network.modules():
        if isinstance(convolution, Convolution):
            torch.nn.init.kaiming_normal_(convolution.weight)
    path.mkdir(parents=True, exist_ok=True)
    save_file(unfold(network.state_dict()), path / WEIGHTS)
    config = {"model_type": ARCHITECTURE, "architectures": ["EfficientNetLite0Model"]}
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    processor("lite").save_pretrained(path)
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
    _spread(network)
    network.save_pretrained(path)
    words.save_pretrained(path)
    processor(architecture).save_pretrained(path)
    return path


def text_recognizer(path: Path) -> Path:
    """A TrOCR directory that writes up to ten tokens, some texts shorter."""
    torch.manual_seed(0)
    words = tokenizer()
    decoder = TrOCRConfig(
        vocab_size=len(words),
        d_model=32,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=64,
        max_position_embeddings=32,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    encoder = ViTConfig(**_VIT, intermediate_size=64)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    network = VisionEncoderDecoderModel(config)
    _spread(network)
    with torch.no_grad():
        network.decoder.get_output_embeddings().weight[3] *= 3  # so that some texts end
    network.config.decoder_start_token_id = 2
    more = {"max_length": 11, "num_beams": 4, "decoder_start_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    network.generation_config = GenerationConfig(**more)
    network.save_pretrained(path)
    words.save_pretrained(path)
    processor("vit").save_pretrained(path)
    return path


def _labels() -> dict[str, Any]:
    names = dict(enumerate(LABELS))
    return {"id2label": names, "label2id": {name: index for index, name in names.items()}}


def _spread(network: torch.nn.Module) -> None:
    """Weights that give different images different answers."""
    for weight in network.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.2)


def _fit_statistics(network: torch.nn.Module) -> None:
    """Batch normalization that keeps values of some size through many layers."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    _spread(network)
    with torch.no_grad():
        network.train()(torch.randn(16, 3, SIDE, SIDE))
    network.eval()
