"""A program of the registry in service."""

from __future__ import annotations

from models.images.reader import ImageLimits
from models.registry.artifact import Manifest
from service.serving.image_program import ServedImageProgram
from service.serving.model_opener import OpenedProgram
from service.serving.program_model import ServedProgram
from service.serving.servable import ServingContext


class ProgramVersion(ServedProgram):
    """A version of a program. It has an engine of its own, which runs until no request holds the version."""

    owns_engine = True
    manifest: Manifest


class ImageProgramVersion(ServedImageProgram, ProgramVersion):
    """A version of a program that reads images, too."""


def serve_version(
    opened: OpenedProgram, manifest: Manifest, context: ServingContext, limits: ImageLimits
) -> ProgramVersion:
    """A version in service, which may read images as well."""
    if opened.program.description.preprocess is None:
        version = ProgramVersion(opened.program, opened.engine, context)
    else:
        version = ImageProgramVersion(opened.program, opened.engine, context, limits)
    version.manifest = manifest
    return version
