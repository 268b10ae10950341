"""What a model directory says that it is: dense encoders and classifiers are served, of texts and of images.

A dense encoder's row has one width. Sparse and multi-vector encoders have rows of another form. The engine's seam for
them is `width` of `models.metadata.ModelMetadata`, which `service.engine.runner` requires of every row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from models.errors import ModelSourceError
from models.filesystem import read_json

_CROSS_ENCODER = "a cross-encoder without a classification head, which scores by a language model's logits"
_PROMPTED = "a cross-encoder with a default prompt"
_SPARSE = "a sparse encoder (SPLADE)"
_MULTI_VECTOR = "a multi-vector encoder (ColBERT), with a vector for each token"
_TIMM = "a timm checkpoint (take the model's transformers directory, or make a .pt2 of it with sonde export)"
_BY_MODEL_TYPE = {
    "CrossEncoder": _CROSS_ENCODER,
    "SparseEncoder": _SPARSE,
    "MultiVectorEncoder": _MULTI_VECTOR,
    "ColBERT": _MULTI_VECTOR,
}
_BY_MODULE = {
    "CLIPModel": "a CLIP without image processor, or whose vectors further modules change",
    "LogitScore": _CROSS_ENCODER,
    "SpladePooling": _SPARSE,
    "SparseAutoEncoder": _SPARSE,
    "SparseStaticEmbedding": _SPARSE,
    "MLMTransformer": _SPARSE,
    "CSRSparsity": _SPARSE,
    "MultiVectorMask": _MULTI_VECTOR,
}
_BY_ARCHITECTURE = {
    "HF_ColBERT": _MULTI_VECTOR,
    "ForCausalLM": "a causal language model",
    "LMHeadModel": "a causal language model",
    "DoubleHeadsModel": "a causal language model",
    "ForSeq2SeqLM": "a sequence-to-sequence language model",
    "ForConditionalGeneration": "a generating language model",
    "ForTokenClassification": "a token classifier",
    "ForQuestionAnswering": "a model for question answering",
    "ForMultipleChoice": "a model for multiple choice",
    "ForNextSentencePrediction": "a model for the next sentence",
    "ForImageClassification": "an image classifier without preprocessor_config.json",
    "ForObjectDetection": "an object detector without preprocessor_config.json",
    "ForSemanticSegmentation": "a model for segmentation",
    "ForMaskedImageModeling": "a model that restores images",
    "VisionEncoderDecoderModel": "a model from images to texts without image processor",
    "ForRetrieval": _MULTI_VECTOR,
}
CLASSIFIER = "ForSequenceClassification"
IMAGE_CLASSIFIER = "ForImageClassification"
OBJECT_DETECTOR = "ForObjectDetection"
TEXT_RECOGNIZER = "VisionEncoderDecoderModel"
# Texts and images in one space.
_PAIRED = {"CLIPModel", "SiglipModel"}
ImageKind = Literal["classifier", "detector", "encoder", "recognizer", "text-image"]


def require_served_kind(root: Path) -> None:
    """Raise ModelSourceError naming the kind of what is no dense encoder or classifier."""
    try:
        kind = _find_kind(root)
    except ValueError as error:
        raise ModelSourceError(f"{root.name}/{error}", param="model") from error
    if kind:
        raise ModelSourceError(
            f"{root.name}: expected a dense encoder, or a model with a classification head, got {kind}", param="model"
        )


def is_classifier(config: dict[str, Any]) -> bool:
    """Whether config.json states a classification head."""
    return any(name.endswith(CLASSIFIER) for name in _architectures(config))


def image_kind(root: Path) -> ImageKind | None:
    """What a directory with an image processor is; None for models of texts, and for what is not served.

    Raises ValueError for files that are not JSON.
    """
    modules, folder = read_json(root / "modules.json", list), network_folder(root)
    config = read_json(folder / "config.json", dict)
    names = _architectures(config)
    if not names or not _has_image_processor(folder):
        return None
    if modules:
        return "text-image" if _PAIRED.intersection(names) and _gives_its_vectors(modules) else None
    if any(name.endswith(IMAGE_CLASSIFIER) for name in names):
        return "classifier"
    if TEXT_RECOGNIZER in names:
        return "recognizer"
    if any(name.endswith(OBJECT_DETECTOR) for name in names):
        return "detector"
    if _PAIRED.intersection(names):
        return "text-image"
    return "encoder" if all(name.endswith("Model") for name in names) and "text_config" not in config else None


def network_folder(root: Path) -> Path:
    """Where the network of a directory is: in the folder of the first module, in those of sentence-transformers.

    Raises ValueError for a folder outside, and for files that are not JSON.
    """
    modules = read_json(root / "modules.json", list)
    stated = modules[0].get("path") if modules and isinstance(modules[0], dict) else None
    folder = root / str(stated or "")
    if not folder.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"modules.json: expected a folder within the directory, got {stated!r}")
    return folder


def _has_image_processor(folder: Path) -> bool:
    """Whether a folder has an image processor, by itself or in one of texts and images."""
    both = read_json(folder / "processor_config.json", dict)
    return bool(read_json(folder / "preprocessor_config.json", dict)) or "image_processor" in both


def _gives_its_vectors(modules: list[Any]) -> bool:
    """Whether modules give a network's vectors as they are, or scaled to length 1."""
    kinds = _last_parts([str(module.get("type", "")) for module in modules if isinstance(module, dict)])
    return kinds[:1] in (["CLIPModel"], ["Transformer"]) and kinds[1:] in ([], ["Normalize"])


def _find_kind(root: Path) -> str | None:
    """The kind of a model that is not served; None for others."""
    if image_kind(root):
        return None
    config, modules = read_json(root / "config.json", dict), read_json(root / "modules.json", list)
    about = read_json(root / "config_sentence_transformers.json", dict)
    stated = str(about.get("model_type"))
    classes = [str(module.get("type", "")) for module in modules if isinstance(module, dict)]
    if any(name.startswith("pylate.") for name in classes):
        return _MULTI_VECTOR
    if found := next((_BY_MODULE[name] for name in _last_parts(classes) if name in _BY_MODULE), None):
        return found
    if stated == "CrossEncoder" and is_classifier(config) and len(classes) <= 1:
        return _PROMPTED if _default_prompt(about) else None
    if "architecture" in config and not _architectures(config):  # transformers writes a list, "architectures"
        return _TIMM
    return _BY_MODEL_TYPE.get(stated) or _kind_of_architecture(config, is_bare=not modules)


def _kind_of_architecture(config: dict[str, Any], *, is_bare: bool) -> str | None:
    """The kind of an architecture; modules say what is done with the body of a language model."""
    for name in _architectures(config):
        for ending, kind in _BY_ARCHITECTURE.items():
            if name.endswith(ending) and (is_bare or ending == "HF_ColBERT"):
                return kind
    return None


def _default_prompt(about: dict[str, Any]) -> str:
    """The prompt before every input; Sonde reads pairs without one."""
    return str((about.get("prompts") or {}).get(about.get("default_prompt_name")) or "")


def _architectures(config: dict[str, Any]) -> list[str]:
    stated = config.get("architectures")
    return [str(name) for name in stated] if isinstance(stated, list) else []


def _last_parts(names: list[str]) -> list[str]:
    return [name.rsplit(".", 1)[-1] for name in names]
