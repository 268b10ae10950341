"""How a job changes copies of its training rows."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Augmentation(_Options):
    """The shares of training texts that are changed; held-out texts stay as they are."""

    typos: float = Field(0.0, ge=0, le=1)
    casing: float = Field(0.0, ge=0, le=1)
    word_dropout: float = Field(0.0, ge=0, le=1)


class ImageAugmentation(_Options):
    """Changed copies of training images; held-out images stay as they are.

    "auto" keeps them where heads fitted to `views` copies of each image, too, are better out of fold. `flip` mirrors;
    "none" is right where labels tell left from right, such as letters or a part's handedness. `crop` is the share of
    each side that is cut away at most. `rotate` is in degrees and `brightness` a share, either way. `blur` is the
    radius of a Gaussian in pixels of the scaled image.
    """

    use: Literal["auto", "on", "off"] = "auto"
    views: int = Field(4, ge=1, le=16)
    flip: Literal["none", "horizontal", "both"] = "horizontal"
    crop: float = Field(0.1, ge=0, le=0.9)
    rotate: float = Field(10.0, ge=0, le=180)
    brightness: float = Field(0.2, ge=0, lt=1)
    blur: float = Field(1.0, ge=0, le=10)
