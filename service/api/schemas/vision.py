"""Bodies of routes that read images alone."""

from __future__ import annotations

from pydantic import Field

from service.api.schemas.answers import ResponseBody, Usage
from service.api.schemas.images import image_or_images
from service.api.schemas.requests import OPTIONAL_MODEL, CompatibleBody, Count, Probability, RequestBody
from service.api.schemas.tei import PredictParameters, TeiBody, ZeroShotParameters

IMAGES = Field(description="images as base64 or data URIs; a form may have them as files, and a body be one image")


class BoxObject(ResponseBody):
    xmin: float
    ymin: float
    xmax: float
    ymax: float


class PreprocessBody(RequestBody):
    model: str | None = OPTIONAL_MODEL
    images: image_or_images("images") = IMAGES  # type: ignore[valid-type]


class PreprocessedImage(ResponseBody):
    object: str
    index: int
    shape: list[int] = Field(description="of the tensor that the network reads, with its batch of one")
    dtype: str
    device: str
    scale: float = Field(description="8 bits are multiplied by it, before mean and std")
    mean: list[float]
    std: list[float]
    minimum: float = Field(description="the tensor's least value")
    maximum: float = Field(description="the tensor's largest value")
    image: str = Field(description="the tensor before scale, mean and std, as a data URI of a PNG")


class PreprocessAnswer(ResponseBody):
    object: str
    model: str
    data: list[PreprocessedImage]
    usage: Usage


class DetectBody(RequestBody):
    model: str | None = OPTIONAL_MODEL
    images: image_or_images("images") = IMAGES  # type: ignore[valid-type]
    threshold: Probability = Field(0.5, description="answer with objects whose score is above it")
    top_k: Count | None = Field(None, description="number of best objects of each image; without it, all")


class DetectedObject(ResponseBody):
    label: str
    score: Probability
    box: BoxObject = Field(description="in pixels of the image as it was sent, turned as its EXIF block says")


class DetectionObject(ResponseBody):
    object: str
    index: int
    width: int
    height: int
    objects: list[DetectedObject] = Field(description="best first")


class DetectAnswer(ResponseBody):
    object: str
    model: str
    data: list[DetectionObject]
    usage: Usage


class HubImageBody(TeiBody):
    """What Hugging Face's clients send with images."""

    inputs: image_or_images("inputs")  # type: ignore[valid-type]


class HubClassificationBody(HubImageBody):
    parameters: PredictParameters | None = None


class HubZeroShotBody(HubImageBody):
    parameters: ZeroShotParameters


class DetectionParameters(CompatibleBody):
    threshold: Probability = 0.5


class HubDetectionBody(HubImageBody):
    parameters: DetectionParameters | None = None


class OcrBody(RequestBody):
    model: str | None = OPTIONAL_MODEL
    images: image_or_images("images") = IMAGES  # type: ignore[valid-type]
    lines: bool = Field(True, description="find the lines of each image; false: each image is one line")


class OcrLine(ResponseBody):
    text: str
    confidence: Probability = Field(description="the geometric mean of the probabilities of the line's tokens")
    box: BoxObject = Field(description="in pixels of the image as it was sent, turned as its EXIF block says")
    truncated: bool = Field(description="whether the model had more to write than it may")


class OcrObject(ResponseBody):
    object: str
    index: int
    width: int
    height: int
    text: str = Field(description="the lines, each with a line feed between it and the next")
    confidence: float | None = Field(description="of the line that is read least surely; null without lines")
    lines: list[OcrLine] = Field(description="from top to bottom, and from left to right")


class OcrAnswer(ResponseBody):
    object: str
    model: str
    data: list[OcrObject]
    usage: Usage
